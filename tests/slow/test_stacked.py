"""``launcher=stacked``: jobs that train as one end where each of them would alone, and nobody can tell."""

import json
import subprocess
import sys

import pytest
import torch
from command import SPLITS, TINY, environment
from faults_of_loggers import KILL, TERMINATE
from runs import figures, scalars, status, weights

from tutelage.checkpoints.weights import read_state

pytestmark = pytest.mark.slow

# All that has a state or draws from chance.
EVERYTHING = (
    "model@teacher=mlp", "model@student=mlp", "teacher.net.widths=[16]", *SPLITS, "trainer.max_epochs=2",
    "stages.teacher.trainer.max_epochs=1", "student.net={widths: [8], dropout: 0.3, input_dropout: 0.1}",
    "scheduler=cosine", "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]",
    "trainer.log_every_n_steps=7", "callbacks.progress=null",
)  # fmt: skip
GRID = (
    "seed=0,1", "loss.temperature=1,4", "optimizer.lr=1e-3,1e-2", "optimizer.weight_decay=1e-2",
    "stages.teacher.optimizer.lr=1e-3",
)  # fmt: skip


def sweep(run, folder, launcher, *overrides):
    """Runs it in ``folder``; where its jobs are, and the answer."""
    where = f"paths.outputs={folder}", f"hydra.sweep.dir={folder}/sweep"
    return folder / "sweep", run("distill", "-m", f"launcher={launcher}", *where, *overrides)


def same_weights(one, alone):
    """In double precision, to rounding."""
    for kind in ("last", "best"):
        found, expected = (read_state(folder / "checkpoints" / f"{kind}.safetensors") for folder in (one, alone))
        for name, tensor in expected.items():
            assert tensor.dtype == torch.float64 or not tensor.is_floating_point()
            torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.long
def test_in_double_precision_every_job_is_the_job_alone(main, tmp_path):
    both = {}
    for launcher in ("stacked", "basic"):
        folder, answer = sweep(main, tmp_path / launcher, launcher, *EVERYTHING, *GRID, "trainer.precision=64-true")
        assert answer.code == 0, answer.message
        both[launcher] = folder
        stacked = launcher == "stacked"
        assert ("training 8 students, 4 controls as one" in answer.out) == stacked
    jobs = sorted(path.name for path in both["basic"].iterdir() if (path / "status.json").exists())
    assert len(jobs) == 8
    for job in jobs:
        one, alone = (both[launcher] / job for launcher in ("stacked", "basic"))
        same_weights(one, alone)
        found, expected = figures(one), figures(alone)
        for role in ("control", "student"):
            for weights_of in ("last", "best"):
                assert found[role][weights_of]["epoch"] == expected[role][weights_of]["epoch"]
                for split in ("val", "test"):
                    assert found[role][weights_of][split]["accuracy"] == expected[role][weights_of][split]["accuracy"]
        curves = [scalars(folder / "tensorboard") for folder in (one, alone)]
        assert curves[0].keys() == curves[1].keys()
        for name, expected in curves[1].items():
            steps, values = zip(*sorted(expected), strict=True)
            assert steps == tuple(step for step, _ in sorted(curves[0][name])), name
            assert [value for _, value in sorted(curves[0][name])] == pytest.approx(values, rel=1e-4, abs=1e-6), name
        assert status(one)["state"] == "COMPLETE"
        assert (one / "config.yaml").read_text() == (alone / "config.yaml").read_text().replace("basic", "stacked")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap's word on a convolution, once a process
@pytest.mark.parametrize(
    "pair",
    [
        ("model@student=soft_tree", "student.net.depth=3", "loss=soft_tree"),  # the loss has running averages
        ("model@student=vgg4", "student.net.widths=[2,2,2]"),  # biases before batch norms have gradients of rounding
    ],
    ids=["soft_tree", "vgg4"],
)
def test_what_keeps_averages_is_the_job_alone(main, tmp_path, pair):
    short = (
        "model@teacher=mlp", "teacher.net.widths=[16]", *SPLITS, "trainer.max_epochs=2", "trainer.precision=64-true",
        "logger=none", "callbacks.progress=null", "seed=0,1",
    )  # fmt: skip
    alone, _ = sweep(main, tmp_path / "alone", "basic", *pair, *short)
    together, answer = sweep(main, tmp_path / "together", "stacked", "hydra.launcher.max_macs=null", *pair, *short)
    assert "training 2 students, 2 controls as one" in answer.out or "training 2 students as one" in answer.out
    for job in ("seed=0", "seed=1"):
        assert json.loads((together / job / "checkpoints" / "stage.json").read_text())["stacked"] > 1
        same_weights(together / job, alone / job)


def strike(run, folder, number):
    """Starts a stack of two that gets a signal in its second epoch; the same command again would go on."""
    harm = (
        f"{{_target_: faults_of_loggers.StrikeAt, step: 25, stage: student, number: {number}, marker: {folder}/marker}}"
    )
    command = (*EVERYTHING, "seed=0,1", "callbacks.recovery.every_n_steps=6", f"+logger.harm={harm}")
    where, struck = sweep(lambda *line: run(*line, check=False), folder, "stacked", *command)
    assert (folder / "marker").exists()
    assert not list(where.glob("*/checkpoints/stage.json"))
    [states] = where.glob(".stacks/**/states")
    assert list(states.iterdir())
    return command, sorted(path for path in where.iterdir() if (path / "status.json").exists()), struck


@pytest.mark.long
def test_a_stack_that_was_killed_ends_in_the_same_bits(cli, tmp_path):
    whole, _ = sweep(cli, tmp_path / "whole", "stacked", *EVERYTHING, "seed=0,1", "callbacks.recovery.every_n_steps=6")
    command, jobs, struck = strike(cli, tmp_path / "struck", KILL)
    assert struck.returncode == -KILL
    assert [status(job)["state"] for job in jobs] == ["RUNNING"] * 2
    where, again = sweep(cli, tmp_path / "struck", "stacked", *command)
    assert "training 2 students, 2 controls as one" in again.stdout
    assert [status(job)["state"] for job in jobs] == ["COMPLETE"] * 2
    for job in jobs:
        assert weights(job) == weights(whole / job.name)
        assert figures(job) == figures(whole / job.name)
        stages = [json.loads((folder / "checkpoints/stage.json").read_text()) for folder in (job, whole / job.name)]
        assert stages[0]["gradient_norms"] == stages[1]["gradient_norms"]
    assert not (where / ".stacks").exists()


@pytest.mark.long
def test_a_stack_that_is_preempted_says_so_for_every_job(cli, tmp_path):
    _, jobs, struck = strike(cli, tmp_path, TERMINATE)
    assert struck.returncode == 143, struck.stdout + struck.stderr
    assert [status(job)["state"] for job in jobs] == ["PREEMPTED"] * 2


@pytest.mark.long
def test_a_job_that_breaks_leaves_the_others_as_they_are(main, tmp_path):
    quick = (*EVERYTHING, "logger=none")
    rates = "optimizer.lr=1e-3,2e-3,1e38"
    folder, answer = sweep(main, tmp_path, "stacked", *quick, rates, "stages.teacher.optimizer.lr=1e-3",
                           "stages.control.optimizer.lr=1e-3")  # fmt: skip
    assert answer.code == 1
    assert "its loss is not finite" in answer.out
    states = {rate: status(folder / f"optimizer.lr={rate}")["state"] for rate in ("0.001", "0.002", "1e+38")}
    assert states == {"0.001": "COMPLETE", "0.002": "COMPLETE", "1e+38": "FAILED"}
    assert "1 of 3 jobs did not complete" in answer.message


@pytest.mark.long
def test_a_network_that_does_not_fit_leaves_the_others_as_they_are(main, tmp_path):
    pairs = "model@student=mlp,lenet5_half"  # which wants images of twelve pixels a side
    base = [one for one in EVERYTHING if not one.startswith(("student.", "model@student"))]
    folder, answer = sweep(main, tmp_path, "stacked", *base, "logger=none", pairs, "seed=0,1")
    assert answer.code == 1
    assert "2 of 4 jobs did not complete" in answer.message
    states = {path.parent.name: status(path.parent)["state"] for path in folder.glob("*/status.json")}
    assert sorted(states.values()) == ["COMPLETE", "COMPLETE", "FAILED", "FAILED"]
    assert all(("lenet" in name) == (state == "FAILED") for name, state in states.items())


@pytest.mark.long
def test_jobs_that_differ_in_more_train_by_themselves_and_it_says_why(main, tmp_path):
    quick = (*EVERYTHING, "logger=none")
    _, answer = sweep(main, tmp_path, "stacked", *quick, "student.net.widths=[8],[9]", "loss=soft_target")
    assert answer.code == 0
    assert "2 trainings not stacked: no other job differs in stackable values only" in answer.out
    _, answer = sweep(main, tmp_path / "most", "stacked", *quick, "seed=0,1", "hydra.launcher.max_macs=1000")
    assert "stacking is no faster on a CPU" in answer.out
    _, answer = sweep(main, tmp_path / "parts", "stacked", *quick, "seed=range(0,4)", "hydra.launcher.max_jobs=2")
    assert (
        answer.out.count("training 2 students as one") + answer.out.count("training 1 student, 1 control as one") == 4
    )


@pytest.mark.long
def test_two_processes_with_one_folder_do_not_harm_each_other(tmp_path):
    where = (f"paths.outputs={tmp_path}", f"hydra.sweep.dir={tmp_path}/sweep")
    line = ("distill", "-m", "launcher=stacked", *TINY, "callbacks.progress=null", *where, "seed=0,1", "loss.alpha=.5")
    command = [sys.executable, "-m", "tutelage", *line]
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate() for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, said
    for code, (out, err) in zip(codes, said, strict=True):
        assert "Traceback" not in out + err
        assert code == 0 or "another process" in err
    jobs = sorted((tmp_path / "sweep").glob("seed=*"))
    assert [status(job)["state"] for job in jobs] == ["COMPLETE", "COMPLETE"]
    assert not (tmp_path / "sweep" / ".stacks").exists()
