"""A stranger's project: a package with a LightningDataModule, a loss and a logger, in one command on the digits."""

import json
import os
import subprocess
import sys

import pytest
from command import PAIR, environment
from runs import figures, status

pytestmark = pytest.mark.slow

PACKAGE = """
import json
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers.logger import Logger
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset, random_split


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
  train_transform: {_target_: torchvision.transforms.v2.RandomRotation, degrees: 10}
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
LOGGER = "lines:\n  _target_: stranger.Lines\n"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "stranger.py").write_text(PACKAGE)
    for path, content in (("data/scans", DATA), ("loss/cosine", LOSS), ("logger/lines", LOGGER)):
        file = tmp_path / "my_conf" / f"{path}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(content)
    return tmp_path


def run(project, *arguments):
    env = environment(PYTHONPATH=f"{project}{os.pathsep}{environment()['PYTHONPATH']}")
    command = [sys.executable, "-m", "tutelage", *arguments]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_one_command_trains_it_and_its_file_is_evaluated(project):
    own = ("--config-dir", "my_conf", "data=scans", "loss=cosine", "logger=lines")
    run(project, "distill", *own, *PAIR, "trainer.max_epochs=2", "trainer.log_every_n_steps=5", "hydra.run.dir=run")
    assert status(project / "run")["state"] == "COMPLETE"
    found = figures(project / "run")
    assert found["student"]["last"]["test"]["count"] == 297
    lines = [json.loads(line) for file in project.rglob("lines.jsonl") for line in file.read_text().splitlines()]
    assert any("train/cosine" in line for line in lines)
    checkpoint = project / "run" / "checkpoints" / "best.safetensors"
    run(project, "evaluate", f"checkpoint={checkpoint}", "trust=[stranger]", "hydra.run.dir=measured")
    measured = json.loads((project / "measured" / "metrics.json").read_text())
    assert measured["about"]["class_names"][7] == "digit 7"
    assert measured["figures"]["accuracy"] == found["student"]["best"]["test"]["accuracy"]
