"""Sweeps on a real SLURM of one node: submitit's arrays, ranks, preemption, a job that dies."""

import os
import signal
import subprocess
import sys
import time

import pytest
from command import PAIR, SPLITS, TINY, environment
from runs import artifacts, figures, status, weights
from slurm import Slurm, missing

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

QUICK = ("logger=none", "callbacks.progress=null")
LAUNCHER = (
    "launcher=submitit_slurm", "hydra.launcher.partition=main", "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.gpus_per_node=null", "hydra.launcher.timeout_min=5", "hydra.sweep.dir=sweep",
)  # fmt: skip


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if lacking := missing():
        pytest.skip(f"needs Debian's slurm-wlm and munge: {lacking} are not here")
    if os.geteuid() != 0:
        pytest.skip("needs root, as whom the daemons run")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    cluster = Slurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def submit(slurm, tmp_path):
    """``submit(*overrides)`` starts a multirun on the cluster."""

    def start(*overrides, launcher=LAUNCHER):
        command = [sys.executable, "-m", "tutelage", "distill", "-m", *launcher, *QUICK, *overrides]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment(**slurm.environment), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return start


def finished(process):
    out, _ = process.communicate(timeout=200)
    return process.returncode, out


def until(ready, what, seconds=60):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def test_four_jobs_are_one_array_with_one_teacher(submit, tmp_path):
    code, out = finished(submit(*TINY, "seed=0,1", "loss.temperature=1,4"))
    assert code == 0, out
    folders = [tmp_path / "sweep" / f"loss.temperature={t},seed={seed}" for t in (1, 4) for seed in (0, 1)]
    assert [status(folder)["state"] for folder in folders] == ["COMPLETE"] * 4
    made = tmp_path / "outputs" / "artifacts"
    assert [len(artifacts(made, kind)) for kind in ("teacher", "control")] == [1, 2]


@pytest.mark.parametrize(
    "ranks",
    [
        ("hydra.launcher.cpus_per_task=2", "trainer=ddp"),  # one task, which starts its ranks
        ("hydra.launcher.tasks_per_node=2", "trainer=ddp"),  # two tasks, each of them a rank
    ],
    ids=["ours", "slurm's"],
)
def test_two_ranks_are_one_process(submit, tmp_path, cli, ranks):
    launcher = [one for one in LAUNCHER if one.split("=")[0] not in {rank.split("=")[0] for rank in ranks}]
    code, out = finished(submit(*TINY, *ranks, "trainer.accelerator=cpu", "seed=0", launcher=launcher))
    assert code == 0, out
    [folder] = {path.parent for path in tmp_path.glob("sweep/**/metrics.json")}
    cli("distill", *TINY, *QUICK, "hydra.run.dir=alone", "paths.artifacts=own")
    found, expected = (figures(path)["student"]["last"]["test"]["nll"] for path in (folder, tmp_path / "alone"))
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_preempted_job_is_queued_again_and_ends_in_the_same_bits(submit, slurm, tmp_path, cli):
    slow = f"+callbacks.slow={{_target_: watchers.Slow, stage: student, marker: {tmp_path / 'marker'}, seconds: 1}}"
    long = (*PAIR, *SPLITS, "trainer.max_epochs=4")
    job = submit(*long, slow, "seed=0")
    until((tmp_path / "marker").exists, "the student's training")
    first = slurm("squeue", "-h", "-o", "%i").split()
    slurm("sbatch", "--partition=high", "--cpus-per-task=4", "--wrap=sleep 3", "--output=/dev/null")
    code, out = finished(job)
    assert code == 0, out
    assert len(first) == 1
    shown = slurm("scontrol", "-o", "show", "job", first[0])
    assert "Restarts=1" in shown
    [folder] = {path.parent for path in tmp_path.glob("sweep/**/metrics.json")}
    cli("distill", *long, *QUICK, "hydra.run.dir=alone", "paths.artifacts=own")
    assert weights(folder) == weights(tmp_path / "alone")


def test_a_killed_job_is_found_dead_and_the_others_finish(submit, slurm, tmp_path, cli):
    slow = f"+callbacks.slow={{_target_: watchers.Slow, stage: student, marker: {tmp_path / 'marker'}, seconds: 3}}"
    job = submit(*TINY, slow, "loss.temperature=1,4")
    until((tmp_path / "marker").exists, "a student's training")
    victim = next(folder for folder in (tmp_path / "sweep").glob("loss*") if status(folder)["state"] == "RUNNING")
    os.kill(status(victim)["pid"], signal.SIGKILL)
    code, out = finished(job)
    assert code == 1
    shown = cli("status", "sweep").stdout
    assert f"{victim.name}" in shown
    assert "DEAD" in shown
    states = [status(folder)["state"] for folder in (tmp_path / "sweep").glob("loss*") if folder != victim]
    assert states == ["COMPLETE"]
    assert "1 of 2 jobs did not complete" in out
