"""Faults 1, 7 and 11: a run that was killed, preempted or damaged ends in the bits of one that was not."""

import os
import signal
import subprocess
import sys
import time
from functools import cache

import pytest
from command import SPLITS, TINY, environment, tutelage
from runs import artifacts, figures, first_steps, scalars, status, weights

from tutelage.training.callbacks.recovery import states

pytestmark = pytest.mark.slow

# All that has a state or draws from chance. 18 steps an epoch, a state before every sixth: some lie on an epoch's end.
EVERYTHING = (
    "trainer.max_epochs=3", *SPLITS,
    "model@teacher=mlp", "model@student=mlp",
    "teacher.net={widths: [24], dropout: 0.2}", "student.net={widths: [12], dropout: 0.3}",
    "scheduler=cosine", "optimizer.layer_decay=0.5", "optimizer.no_decay=norm_and_bias",
    "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]", "data.num_workers=1",
    "trainer.log_every_n_steps=5", "callbacks.recovery.every_n_steps=6",
)  # fmt: skip
FITNET, MOMENTUM = (*EVERYTHING, "loss=[soft_target,fitnet]"), (*EVERYTHING, "sources=ema_teacher", "optimizer=sgd")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """``whole(overrides)`` → the folder of an uninterrupted run, made once."""

    @cache
    def run(overrides):
        folder = tmp_path_factory.mktemp("whole")
        tutelage("distill", *overrides, "hydra.run.dir=run", "paths.artifacts=shop", cwd=folder)
        return folder

    return run


def struck(cli, tmp_path, overrides, kind, at, code, between=lambda stage: None):
    """Starts the same job again after every strike, of which there is one in each stage of ``at``."""
    harm = [
        f"+callbacks.{stage}={{_target_: faults.{kind}, stage: {stage}, step: {step}, marker: {tmp_path / stage}}}"
        for stage, step in at.items()
    ]
    command = ["distill", *overrides, *harm, "hydra.run.dir=run", "paths.artifacts=shop"]
    for stage in at:
        done = cli(*command, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert (tmp_path / stage).exists()
        assert status(tmp_path / "run")["state"] == ("PREEMPTED" if code == 143 else "RUNNING")
        assert not (tmp_path / "run" / "metrics.json").exists()
        between(stage)
    return cli(*command)


def assert_the_same(found, expected):
    assert weights(found / "run", found / "shop") == weights(expected / "run", expected / "shop")
    assert len(weights(found / "run", found / "shop")) == 6
    assert figures(found / "run") == figures(expected / "run")
    assert scalars(found / "run" / "tensorboard") == scalars(expected / "run" / "tensorboard")
    assert status(found / "run")["state"] == "COMPLETE"
    left = [path for pattern in ("*.ckpt", "*.tmp", ".*.work") for path in found.rglob(pattern)]
    assert left == states(found / "run" / "checkpoints" / "states")  # of the end, to be made longer
    assert len(left) == 1
    assert len(artifacts(found / "shop", "control")) == 1


def assert_it_went_on(found, since):
    """Not from the start, which would give the same bits: by the steps that each attempt has logged."""
    for stage, step in since.items():
        first, *later = first_steps(found / "run" / "tensorboard" / stage)
        assert first < 6
        assert later
        assert all(start >= step for start in later), (stage, later)


@pytest.mark.long
def test_killed_mid_epoch_in_every_stage(cli, tmp_path, whole):
    at = {"teacher": 21, "control": 40, "student": 19}
    struck(cli, tmp_path, FITNET, "KillAt", at, -signal.SIGKILL)
    assert_the_same(tmp_path, whole(FITNET))
    assert_it_went_on(tmp_path, {stage: step - step % 6 for stage, step in at.items()})


@pytest.mark.long
def test_preempted_in_every_stage(cli, tmp_path, whole):
    """Every state but the ones that a SIGTERM asks for is switched off: nothing is lost."""
    at = {"teacher": 22, "control": 18, "student": 37}
    rare = [
        o if "every_n_steps" not in o or "recovery" not in o else "callbacks.recovery.every_n_steps=0" for o in FITNET
    ]
    struck(cli, tmp_path, (*rare, "callbacks.recovery.every_n_seconds=0"), "TerminateAt", at, 143)
    assert_the_same(tmp_path, whole(FITNET))
    assert_it_went_on(tmp_path, at)


@pytest.mark.long
def test_killed_with_a_moving_average_and_the_newest_state_damaged(cli, tmp_path, whole):
    at, damaged = {"control": 31, "student": 39}, {}

    def damage(stage):
        places = {"control": "shop/control/.*.work/states", "student": "run/checkpoints/states"}
        newest = states(next(tmp_path.glob(places[stage])))[-1]
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 1
        newest.write_bytes(content[: len(content) // 3] if stage == "control" else content)
        damaged[stage] = newest.name

    done = struck(cli, tmp_path, MOMENTUM, "KillAt", at, -signal.SIGKILL, damage)
    assert f"{damaged['student']} is truncated or damaged" in done.stdout
    assert damaged["control"] in (tmp_path / "run" / "distill.log").read_text()
    assert_the_same(tmp_path, whole(MOMENTUM))
    assert_it_went_on(tmp_path, {stage: step - step % 6 - 6 for stage, step in at.items()})


@pytest.mark.long
def test_the_comparison_can_fail(whole, tmp_path, cli):
    """Another seed has other weights, figures and curves."""
    cli("distill", *FITNET, "seed=1", "hydra.run.dir=run", "paths.artifacts=shop")
    expected = whole(FITNET)
    assert weights(tmp_path / "run") != weights(expected / "run")
    assert figures(tmp_path / "run") != figures(expected / "run")
    assert scalars(tmp_path / "run" / "tensorboard") != scalars(expected / "run" / "tensorboard")


@pytest.mark.long
def test_a_sigterm_from_outside_stops_a_sweep_and_the_same_command_finishes_it(cli, tmp_path):
    command = ["distill", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep", "logger=none"]
    long = [*command, "+callbacks.slow={_target_: watchers.Slow, stage: student, marker: started}"]
    job = subprocess.Popen(
        [sys.executable, "-m", "tutelage", *long], cwd=tmp_path, env=environment(), start_new_session=True
    )
    try:
        end = time.monotonic() + 1200
        while not (tmp_path / "started").exists() and job.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(job.pid, signal.SIGTERM)
        assert job.wait(1200) == 143
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    (first,) = (path.parent for path in (tmp_path / "sweep").rglob("status.json"))
    assert status(first)["state"] == "PREEMPTED"
    assert list((first / "checkpoints" / "states").glob("*.ckpt"))
    cli(*long)
    assert (
        sorted(status(path.parent)["state"] for path in (tmp_path / "sweep").rglob("status.json")) == ["COMPLETE"] * 2
    )
