"""A teacher that reads images and a student that reads their edges, from training to the file of weights."""

import json

import pytest
import torch
from runs import figures

import tutelage as tt
from tutelage.data.derived import Sobel
from tutelage.data.digits import Digits

pytestmark = pytest.mark.slow

JOB = (
    "data.derived={edges: {_target_: tutelage.data.derived.Sobel}}", "+student.reads={input: edges}",
    "model@teacher=mlp", "model@student=mlp", "teacher.net.widths=[24]", "student.net.widths=[16]",
    "loss.alpha=0.5", "optimizer.lr=0.01", "data.labelled=60", "data.repeat_labelled=3",
    "stages.student.phases={transfer: {terms: [soft], trainer: {max_epochs: 10}}, finetune: {terms: [hard]}}",
    "trainer.max_epochs=2", "stages.teacher.trainer.max_epochs=8", "logger=none", "callbacks.progress=null",
)  # fmt: skip


def test_the_student_learns_from_pairs_without_labels_and_reads_its_own_modality_alone(main, tmp_path):
    answer = main("distill", *JOB, "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    checkpoints = tmp_path / "run" / "checkpoints"
    common = {"num_classes": 10, "input_shape": [1, 8, 8], "mean": [0.3053], "std": [0.376], "seed": 0}
    _, test = Digits(batch_size=8, val_size=600, test_size=597, **common).load()
    edges = Sobel()(test.pixels.images)
    accuracy = {}
    for name in ("phases/transfer/last.safetensors", "last.safetensors"):
        net = tt.load(checkpoints / name)
        with torch.no_grad():
            accuracy[name] = (net(input=edges).argmax(1) == test.labels).float().mean().item()
    assert min(accuracy.values()) > 0.5  # of ten classes; the first has seen no label
    measured = figures(tmp_path / "run")["student"]["last"]["test"]["accuracy"]
    assert accuracy["last.safetensors"] == pytest.approx(measured, abs=2e-3)
    found = main("evaluate", "checkpoint=run/checkpoints/last.safetensors", "hydra.run.dir=measured")
    assert found.code == 0, found.message
    assert json.loads((tmp_path / "measured" / "metrics.json").read_text())["figures"]["accuracy"] == measured
