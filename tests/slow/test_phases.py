"""A student that is trained in phases, from the command line: each goes on from the one before, whatever stops it."""

import json
import signal

import pytest
import torch
from command import tutelage
from runs import weights

from tutelage.checkpoints.weights import read_state

pytestmark = pytest.mark.long

JOB = (
    "distill", "data=dataset", "data.train={_target_: own_text.Sentences}",
    "data.test={_target_: own_text.Sentences, seed: 1}", "data.batch_size=32", "data.val_size=64", "logger=csv",
    "model@teacher=text_transformer", "model@student=text_transformer", "teacher.net.width=16", "student.net.width=16",
    "teacher.net.heads=2", "student.net.heads=2", "teacher.net.layers=2", "student.net.layers=1", "loss=text/tinybert",
    "teacher.net.length=9", "student.net.length=9", "trainer.max_epochs=1", "callbacks.recovery.every_n_steps=2",
    "stages.student.phases.intermediate.trainer.max_epochs=2", "stages.student.phases.prediction.trainer.max_epochs=2",
    "stages.student.phases.intermediate.optimizer.lr=0.01", "hydra.run.dir=run", "paths.artifacts=shop",
)  # fmt: skip
FIRST = "run/checkpoints/phases/intermediate"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tutelage(*JOB, cwd=folder)
    return folder


def test_killed_in_a_phase_and_after_its_boundary_it_ends_in_the_same_bits(whole, tmp_path):
    strike = "+callbacks.{0}={{_target_: faults.KillAt, stage: {0}, step: {1}, marker: {2}}}"
    places = {"student_intermediate": 9, "student": 3}
    harm = [strike.format(stage, step, tmp_path / stage) for stage, step in places.items()]
    for _ in places:
        assert tutelage(*JOB, *harm, cwd=tmp_path, check=False).returncode == -signal.SIGKILL
    made = (tmp_path / FIRST / "manifest.json").stat().st_mtime_ns
    tutelage(*JOB, *harm, cwd=tmp_path)
    assert (tmp_path / FIRST / "manifest.json").stat().st_mtime_ns == made  # it was not trained again
    assert weights(tmp_path / "run") == weights(whole / "run")


def test_the_first_phase_learns_states_the_second_answers_and_nothing_is_lost_between(whole, tmp_path):
    facts = json.loads((whole / FIRST / "stage.json").read_text())
    assert facts["epochs"] == 2
    assert json.loads((whole / "run" / "metrics.json").read_text())["student"]["last"]["test"]["accuracy"] > 0
    curves = {path.parent.name: path.read_text().splitlines()[0] for path in (whole / "run").rglob("metrics.csv")}
    assert "train/states" in curves["student_intermediate"]
    assert "train/soft" not in curves["student_intermediate"]
    assert "train/soft" in curves["student"]
    still = "stages.student.phases.prediction.optimizer.lr=1e-30"  # so that what is saved is what it began with
    tutelage(*JOB, still, cwd=tmp_path)
    first = read_state(tmp_path / FIRST / "last.safetensors")
    for name, tensor in read_state(tmp_path / "run" / "checkpoints" / "last.safetensors").items():
        torch.testing.assert_close(tensor, first[name], rtol=0, atol=1e-12)
