"""Data-free distillation from the command line: ``loss=data_free/…``."""

import json
from pathlib import Path

import pytest
from command import SPLITS
from resumed import killed_ends_like_whole
from runs import figures, scalars, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tutelage.checkpoints.weights import about

pytestmark = pytest.mark.slow

FREE = ("model@student=cnn", *SPLITS, "trainer.log_every_n_steps=4")  # dropout of the student: a chance
TEACHER = ("model@teacher=mlp", "teacher.net.widths=[16]")
NORMED = ("model@teacher=vgg4", "+teacher.taps.norm1=stage1.preact.-1.input", "loss.norms=[norm1]")
TURNS = ("stages.student.turns.rounds=9", "stages.student.turns.generator.width=4")
POOLED = (*NORMED, "loss.shift=1", *(f"stages.student.turns.order.{player}.steps=2" for player in (0, 1)))
OWN = {
    "dafl": TEACHER, "dfad": TEACHER, "zskt": (*TEACHER, "loss.attention=0"), "noise": TEACHER, "dfq": NORMED,
    "fast_meta": (*POOLED, "loss.ahead=3"),
}  # fmt: skip


def run(
    tmp_path: Path, name: str, loss: str, *more: str, epochs: int = 2, scheduler: str = "cosine"
) -> tuple[str, ...]:
    places = (f"hydra.run.dir={tmp_path}/{name}/run", f"paths.outputs={tmp_path}/{name}")
    turns = TURNS[:1] if loss == "noise" else TURNS
    length = f"trainer.max_epochs={epochs}", f"scheduler={scheduler}"
    return "distill", *FREE, *length, *turns, f"loss=data_free/{loss}", *OWN[loss], *places, *more


def test_a_student_without_data_is_written_measured_and_shown_like_any(main, tmp_path):
    answer = main(*run(tmp_path, "one", "dfad"))
    assert answer.code == 0, answer.message
    folder = tmp_path / "one/run"
    metrics, stage = figures(folder), json.loads((folder / "checkpoints/stage.json").read_text())
    assert stage["steps"] == 2 * 9  # rounds
    assert "train" not in metrics["student"]["last"]  # there is no training example
    assert about(folder / "checkpoints/last.safetensors")["stage"] == "student"
    evaluated = main("evaluate", f"checkpoint={folder / 'checkpoints/last.safetensors'}", f"hydra.run.dir={tmp_path}/e")
    assert evaluated.code == 0, evaluated.message
    measured = json.loads((tmp_path / "e/metrics.json").read_text())["figures"]
    assert measured["accuracy"] == metrics["student"]["last"]["test"]["accuracy"]
    logged = scalars(folder / "tensorboard")
    for tag in ("loss", "logit_l1", "generator/loss", "generator/adversarial", "generator/learning_rate"):
        assert [step for step, _ in sorted(logged[f"student/train/{tag}"])] == [3, 7, 11, 15], tag
    boards = [EventAccumulator(str(path)).Reload() for path in (folder / "tensorboard/student").glob("events*")]
    assert sum(len(board.Images("generated")) for board in boards if "generated" in board.Tags()["images"]) == 2
    assert main("report", str(folder), "-o", str(tmp_path / "report")).code == 0
    assert "Images that were made for the student" in (tmp_path / "report/index.html").read_text()


def test_without_a_teacher_the_student_is_the_control_to_the_bit(main, tmp_path):
    assert main(*run(tmp_path, "none", "dfad", "loss.alpha=0")).code == 0
    assert set(figures(tmp_path / "none/run")["gain"]["last"].values()) == {0}
    assert not (tmp_path / "none/run/checkpoints/generated.png").exists()


@pytest.mark.long
@pytest.mark.parametrize("loss", ["dafl", "dfad", "dfq", "zskt", "noise", "fast_meta"])
def test_a_killed_run_ends_in_the_same_bits(main, cli, tmp_path, loss):
    def often(name, *more):
        return run(tmp_path, name, loss, "callbacks.recovery.every_n_steps=3", *more)

    killed_ends_like_whole(main, cli, often, tmp_path, step=14)
    pictures = [(tmp_path / name / "run/checkpoints/generated.png").read_bytes() for name in ("killed", "whole")]
    assert pictures[0] == pictures[1]
    assert {step for step, _ in scalars(tmp_path / "killed/run/tensorboard")["student/train/loss"]} == {3, 7, 11, 15}


@pytest.mark.long
def test_a_longer_training_goes_on_from_the_last_state(main, tmp_path):
    others = ("stages.teacher.trainer.max_epochs=1", "stages.control.trainer.max_epochs=2")
    for name, epochs in (("whole", 3), ("longer", 2), ("longer", 3)):
        answer = main(*run(tmp_path, name, "dfad", *others, epochs=epochs, scheduler="constant"))
        assert answer.code == 0, answer.message
    found = [weights(tmp_path / name / "run/checkpoints") for name in ("longer", "whole")]
    for name in ("last.safetensors", "best.safetensors"):
        assert found[0][name] == found[1][name]
