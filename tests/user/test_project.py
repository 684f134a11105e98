"""A stranger's project: a package with everything of one's own, in one command on the digits.

A Dataset, a LightningDataModule, a transform, a network that returns a dataclass, a loss, a metric and a logger.
"""

import json
import sys

import pytest
from runs import figures, status

PACKAGE = """
import json
import random
from dataclasses import dataclass
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers.logger import Logger
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, random_split
from torchmetrics import Metric


class Scans(Dataset):
    classes = [f"digit {i}" for i in range(10)]

    def __init__(self, test):
        found = load_digits()
        rows = slice(1500, None) if test else slice(0, 700)
        self.images, self.targets = (found.images[rows] * 15.9375).astype(np.uint8), found.target[rows]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return {"scan": Image.fromarray(self.images[row]), "digit": int(self.targets[row]), "page": row}


class Module(lightning.LightningDataModule):
    def setup(self, stage):
        self.train, self.val = random_split(Scans(False), [500, 200])
        self.test = Scans(True)

    def train_dataloader(self):
        return DataLoader(self.train)

    def val_dataloader(self):
        return DataLoader(self.val)

    def test_dataloader(self):
        return DataLoader(self.test)


class Tilted(nn.Module):
    def forward(self, image):
        return image.rotate(random.uniform(-10, 10))


@dataclass
class Reading:
    scores: torch.Tensor
    state: torch.Tensor


class Reader(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
        self.head = nn.Linear(width, 10)

    def forward(self, scan):
        state = self.body(scan)
        return Reading(self.head(state), state)


class WorstClass(Metric):
    \"\"\"The accuracy of the class that is recognised worst.\"\"\"

    higher_is_better = True

    def __init__(self):
        super().__init__()
        self.add_state("right", torch.zeros(10), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(10), dist_reduce_fx="sum")

    def update(self, probabilities, label):
        hit = (probabilities.argmax(1) == label).float()
        self.right += torch.zeros(10).index_add(0, label, hit)
        self.count += torch.zeros(10).index_add(0, label, torch.ones_like(hit))

    def compute(self):
        return (self.right / self.count.clamp(min=1)).min()


class Cosine(torch.nn.Module):
    def forward(self, student, teacher):
        return 1 - torch.nn.functional.cosine_similarity(student, teacher).mean()


class Lines(Logger):
    def __init__(self, save_dir):
        super().__init__()
        self.folder = Path(save_dir)

    name, version = "lines", 0

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lines.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **{name: float(x) for name, x in metrics.items()}}) + "\\n")
"""
DATA = """# @package _global_
defaults: [datamodule, _self_]
data:
  datamodule: {_target_: stranger.Module}
  fields: {input: scan, label: digit, page: page}
  train_transform: {_target_: stranger.Tilted}
"""
LOSS = """
alpha: 0.5
terms:
  cosine:
    _target_: tutelage.objective.Term
    loss: {_target_: stranger.Cosine}
    inputs: {student: student.logits}
    targets: {teacher: teacher.logits}
    weight: ${loss.alpha}
"""
MODEL = """
_target_: tutelage.models.tapped.Tapped
net: {_target_: stranger.Reader, width: 16}
reads: {scan: input}
outputs: scores
taps: {state: head.input}
"""
TASK = """# @package _global_
defaults:
  - override /data: scans
  - override /loss: cosine
  - override /logger: lines
  - override /model@teacher: reader
  - override /model@student: reader
task: {headline: worst, metrics: {worst: {_target_: stranger.WorstClass}}}
student: {net: {width: 8}}
trainer: {max_epochs: 2, log_every_n_steps: 5}
"""
LOGGER = "lines:\n  _target_: stranger.Lines\n"


FILES = {
    "data/scans": DATA, "loss/cosine": LOSS, "logger/lines": LOGGER, "model/reader": MODEL, "experiment/reading": TASK,
}  # fmt: skip
TRAIN = ("distill", "--config-dir", "my_conf", "experiment=reading", "hydra.run.dir=run")
EVALUATE = ("evaluate", "checkpoint=run/checkpoints/best.safetensors", "trust=[stranger]", "hydra.run.dir=measured")


@pytest.fixture
def project(tmp_path):
    (tmp_path / "stranger.py").write_text(PACKAGE)
    for path, content in FILES.items():
        file = tmp_path / "my_conf" / f"{path}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return tmp_path


def check(project):
    """Looks for everything of one's own in what a run and an evaluation have left."""
    assert status(project / "run")["state"] == "COMPLETE"
    found = figures(project / "run")
    own = found["student"]["best"]["test"]
    assert own["count"] == 297
    assert found["task"]["headline"] == "worst"
    assert 0 <= own["worst"] <= own["accuracy"]
    assert found["gain"]["best"]["worst"] == pytest.approx(own["worst"] - found["control"]["best"]["test"]["worst"])
    lines = [json.loads(line) for file in project.rglob("lines.jsonl") for line in file.read_text().splitlines()]
    for tag in ("train/cosine", "val/worst"):
        assert any(tag in line for line in lines), tag
    measured = json.loads((project / "measured" / "metrics.json").read_text())
    assert measured["about"]["class_names"][7] == "digit 7"
    assert {name: measured["figures"][name] for name in ("accuracy", "nll", "worst")} == {
        name: own[name] for name in ("accuracy", "nll", "worst")
    }


@pytest.mark.slow
@pytest.mark.long
def test_one_command_trains_all_of_it_and_its_file_is_evaluated(main, project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    for command in (TRAIN, EVALUATE):
        answer = main(*command)
        assert answer.code == 0, answer.message
    check(project)


@pytest.mark.long
def test_the_same_from_the_wheel(wheel, project):
    for command in (TRAIN, EVALUATE):
        wheel("tutelage", *command, cwd=project, PYTHONPATH=str(project))
    check(project)
