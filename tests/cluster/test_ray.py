"""Sweeps on a real Ray cluster, which is started on this machine for them, and whose processes are killed."""

import importlib.util

import pytest
from command import TINY
from runs import artifacts, figures, status

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs pip install 'tutelage[ray]'"),
]


SWEEP = ("distill", "-m", "launcher=ray", *TINY, "logger=none", "callbacks.progress=null", "hydra.sweep.dir=sweep")


def test_four_jobs_with_one_teacher(cli, tmp_path):
    answer = cli(*SWEEP, "seed=0,1", "loss.temperature=1,-1", check=False)
    assert answer.returncode == 1
    folders = [tmp_path / "sweep" / f"loss.temperature={t},seed={seed}" for t in (1, -1) for seed in (0, 1)]
    assert [status(folder)["state"] for folder in folders] == ["COMPLETE", "COMPLETE", "FAILED", "FAILED"]
    assert "2 of 4 jobs did not complete" in answer.stderr
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "teacher")) == 1


def test_a_killed_worker_is_started_again_and_ends_with_the_figures_of_an_undisturbed_one(cli, tmp_path):
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 20, marker: {tmp_path}/struck}}"
    cli(*SWEEP, "seed=0,1", harm)
    assert (tmp_path / "struck").exists()
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    cli(*SWEEP, "seed=0,1", cwd=undisturbed)
    for job in ("sweep/seed=0", "sweep/seed=1"):
        assert figures(tmp_path / job) == figures(undisturbed / job)


def test_a_killed_job_that_ray_may_not_try_again_is_said_and_goes_on_by_the_same_command(cli, tmp_path):
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 20, marker: {tmp_path}/struck}}"
    command = (*SWEEP, "seed=0,1", harm, "+hydra.launcher.ray.remote.max_retries=0")
    answer = cli(*command, check=False)
    assert answer.returncode == 1
    assert "a process of the launcher that ran a job was killed" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "1 of 2 jobs did not complete; to go on with them: hydra.sweep.dir=" in answer.stderr
    cli(*command)
    assert [status(tmp_path / "sweep" / f"seed={seed}")["state"] for seed in (0, 1)] == ["COMPLETE"] * 2
