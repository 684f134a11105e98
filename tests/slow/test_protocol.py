"""Promises of a distillation job, from the command line."""

import json
import subprocess
import sys

import pytest
import torch
from command import PAIR, TINY, environment, tutelage
from runs import artifacts, figures, scalars, status, weights

from tutelage.checkpoints.weights import about, read_state

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished tiny job: (its working folder, its run folder)."""
    folder = tmp_path_factory.mktemp("finished")
    tutelage("distill", *TINY, "hydra.run.dir=run", cwd=folder)
    return folder, folder / "run"


@pytest.mark.parametrize("kind", ["last", "best"])
def test_evaluate_finds_what_the_training_said(finished, main, tmp_path, kind):
    folder, run = finished
    metrics = figures(run)
    paths = {"student": run / "checkpoints"} | {
        role: artifacts(folder / "outputs" / "artifacts", role)[0] for role in ("teacher", "control")
    }
    for role, split in (("student", "test"), ("student", "val"), ("teacher", "test"), ("control", "test")):
        teacher = [] if role == "teacher" else [f"teacher={paths['teacher']}/last.safetensors"]
        command = (
            "evaluate",
            f"checkpoint={paths[role]}/{kind}.safetensors",
            f"split={split}",
            *teacher,
            f"hydra.run.dir=evaluated-{role}-{split}",
        )
        assert main(*command).code == 0
        found = json.loads((tmp_path / f"evaluated-{role}-{split}" / "metrics.json").read_text())["figures"]
        assert found == pytest.approx(metrics[role][kind][split], rel=1e-9)


def test_a_run_s_folder_says_what_it_is(finished):
    _, run = finished
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["schema"] == 1
    for role in ("teacher", "control", "student"):
        assert metrics[role]["parameters"] > 0
        assert metrics[role]["multiply_adds"] > 0
        for kind in ("last", "best"):
            assert {"accuracy", "errors", "nll", "ece", "count"} <= metrics[role][kind]["test"].keys()
    gain = metrics["student"]["last"]["test"]["accuracy"] - metrics["control"]["last"]["test"]["accuracy"]
    assert metrics["gain"]["last"]["accuracy"] == pytest.approx(gain)
    assert status(run)["state"] == "COMPLETE"
    assert json.loads((run / "provenance.json").read_text())["versions"]["torch"] == torch.__version__.split("+")[0]
    logged = scalars(run / "tensorboard")
    for tag in ("teacher/train/loss", "control/train/hard", "student/train/soft", "student/train/learning_rate"):
        assert logged[tag], tag
    for tag in ("student/val/agreement", "control/val/kl_teacher", "teacher/val/accuracy", "final/final/accuracy/gain"):
        assert logged[tag], tag


def test_the_student_s_files_hold_the_student_alone(finished):
    _, run = finished
    assert all(
        name.startswith(("hidden", "classifier")) for name in read_state(run / "checkpoints" / "last.safetensors")
    )
    header = about(run / "checkpoints" / "last.safetensors")
    assert header["stage"] == "student"
    assert header["network"]["net"]["widths"] == [8]


def test_alpha_0_is_the_control_to_the_bit(main, tmp_path):
    assert main("distill", *TINY, "loss.alpha=0", "student.net.dropout=0.3", "hydra.run.dir=run").code == 0
    control = artifacts(tmp_path / "outputs" / "artifacts", "control")[0]
    assert weights(tmp_path / "run" / "checkpoints") == weights(control)
    assert figures(tmp_path / "run")["gain"]["last"]["accuracy"] == 0.0


OPTIONS = ("loss.alpha=1", "loss.temperature=1", "loss.temperature=100", "loss=hard", "logger=none")
MORE = ("trainer.precision=bf16-mixed", "+trainer.accumulate_grad_batches=2", "optimizer@stages.teacher.optimizer=sgd")


@pytest.mark.parametrize("override", OPTIONS + MORE)
def test_end_points_and_options_run(main, override):
    assert main("distill", *TINY, override).code == 0


def test_a_sweep_trains_one_teacher_and_one_control_a_seed(main, tmp_path):
    where = ("hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}")
    assert main("distill", "-m", *TINY, "loss.temperature=2,8", "seed=0,1", *where).code == 0
    assert [status(tmp_path / "sweep" / job)["state"] for job in "0123"] == ["COMPLETE"] * 4
    made = tmp_path / "outputs" / "artifacts"
    assert (len(artifacts(made, "teacher")), len(artifacts(made, "control"))) == (1, 2)
    lasts = {weights(tmp_path / "sweep" / job / "checkpoints")["last.safetensors"] for job in "0123"}
    assert len(lasts) == 4


def test_four_jobs_at_once_build_one_teacher_in_folders_of_their_own(tmp_path):
    """Started in the same second, and none is told its folder."""
    command = [sys.executable, "-m", "tutelage", "distill", *TINY, "logger=none"]
    jobs = [subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [job.wait(timeout=1200) for job in jobs] == [0] * 4
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "teacher")) == 1
    runs = list((tmp_path / "outputs" / "distill").glob("????-??-??/*"))
    assert len(runs) == 4
    built = [figures(run) for run in runs]
    assert all(one == built[0] for one in built)
    reused = [json.loads((run / "metrics.json").read_text())["teacher"]["reused"] for run in runs]
    assert sorted(reused) == [False, True, True, True]


def test_a_teacher_from_a_file_and_a_wrong_one(main, finished, tmp_path):
    folder, _ = finished
    teacher = artifacts(folder / "outputs" / "artifacts", "teacher")[0] / "last.safetensors"
    torch.save(read_state(teacher), tmp_path / "teacher.pt")
    for path in (teacher, tmp_path / "teacher.pt"):
        assert main("distill", *TINY, f"sources.teacher.checkpoint={path}", "logger=none").code == 0
    assert not (tmp_path / "outputs" / "artifacts" / "teacher").exists()
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "given")) == 1  # the same weights
    refused = main("distill", *PAIR[:2], "teacher.net.widths=[17]", f"sources.teacher.checkpoint={teacher}")
    assert refused.code != 0
    assert "does not fit" in refused.message


def test_a_mean_teacher_is_saved_apart(main, tmp_path):
    assert main("distill", *TINY, "sources=ema_teacher", "hydra.run.dir=run").code == 0
    run = tmp_path / "run"
    assert not (tmp_path / "outputs" / "artifacts" / "teacher").exists()
    found = weights(run / "checkpoints")
    assert found["last.safetensors"] != found["teacher/last.safetensors"]
    assert figures(run)["student"]["last"]["test"]["agreement"] > 0


def test_mnist_for_an_epoch(main, tmp_path, mnist_root):
    command = (
        "data=mnist",
        f"data.root={mnist_root}",
        "model@teacher=cnn",
        "model@student=dense",
        "trainer.max_epochs=1",
    )
    answer = main("distill", *command, "data.batch_size=512", "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    metrics = figures(tmp_path / "run")
    assert metrics["teacher"]["parameters"] == 26_698
    assert metrics["student"]["parameters"] == 25_450
    assert metrics["student"]["last"]["test"]["count"] == 10_000
    assert metrics["student"]["last"]["test"]["accuracy"] > 0.8
