"""Sweeps with Hydra's launchers and sweepers: every job in its folder, teacher and controls made once."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
import yaml
from command import PAIR, SPLITS, TINY, environment
from runs import artifacts, status

pytestmark = pytest.mark.slow

QUICK = (*TINY, "logger=none", "callbacks.progress=null", "hydra.sweep.dir=sweep")


@pytest.mark.long
def test_jobs_at_the_same_time(cli, tmp_path):
    command = ("distill", "-m", "launcher=joblib", *QUICK, "seed=0,1")
    cli(*command, "loss.temperature=1,4")
    folders = [tmp_path / "sweep" / f"loss.temperature={t},seed={seed}" for t in (1, 4) for seed in (0, 1)]
    assert [status(folder)["state"] for folder in folders] == ["COMPLETE"] * 4
    made = tmp_path / "outputs" / "artifacts"
    assert [len(artifacts(made, kind)) for kind in ("teacher", "control")] == [1, 2]


@pytest.mark.long
def test_jobs_in_processes_of_their_own_one_of_which_fails(cli, tmp_path):
    answer = cli("distill", "-m", "launcher=submitit_local", *QUICK, "loss.temperature=1,-1", check=False)
    assert answer.returncode == 1
    assert status(tmp_path / "sweep" / "loss.temperature=1")["state"] == "COMPLETE"
    assert "1 of 2 jobs did not complete" in answer.stderr
    assert answer.stderr.count("loss.temperature must be a number > 0; found -1") >= 2


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_whose_process_is_killed_is_said_and_goes_on_by_the_same_command(cli, tmp_path, launcher):
    pytest.importorskip(launcher.partition("_")[0], reason="needs the extras sweep and slurm")
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 20, marker: {tmp_path}/struck}}"
    command = ("distill", "-m", f"launcher={launcher}", *QUICK, "seed=0,1", harm)
    answer = cli(*command, check=False)
    assert answer.returncode == 1
    assert "a process of the launcher that ran a job was killed" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "jobs did not complete; to go on with them: hydra.sweep.dir=" in answer.stderr
    cli(*command)
    assert [status(tmp_path / "sweep" / f"seed={seed}")["state"] for seed in (0, 1)] == ["COMPLETE"] * 2
    made = tmp_path / "outputs" / "artifacts"
    assert [len(artifacts(made, kind)) for kind in ("teacher", "control")] == [1, 2]


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["TERM", "INT", "KILL"]
)
def test_jobs_save_and_no_worker_stays_when_the_launching_process_is_ended(tmp_path, number, code):
    pytest.importorskip("joblib", reason="needs the extra sweep")
    words = (
        "distill", "-m", "launcher=joblib", "hydra.launcher.n_jobs=2", *PAIR, *SPLITS, "trainer.max_epochs=1",
        "stages.student.trainer.max_epochs=100000", "stages.control.trainer.max_epochs=1",
        "logger=none", "callbacks.progress=null", "hydra.sweep.dir=sweep", "seed=range(0,5)",
    )  # fmt: skip
    sweep = subprocess.Popen(
        [sys.executable, "-m", "tutelage", *words], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )  # fmt: skip
    folders = [tmp_path / "sweep" / f"seed={seed}" for seed in range(5)]
    while not all((folder / "checkpoints" / "best.safetensors").is_file() for folder in folders[:2]):
        assert sweep.poll() is None
        time.sleep(0.1)
    workers = [status(folder)["pid"] for folder in folders[:2]]
    sweep.send_signal(number)
    told = sweep.communicate()[1]
    assert sweep.returncode == code
    assert ("2 jobs save their states" in told) == (number != signal.SIGKILL)
    until = time.monotonic() + 60
    while any(map(lives, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(lives, workers))
    assert [status(folder)["state"] for folder in folders[:2]] == ["PREEMPTED"] * 2
    assert all(any((folder / "checkpoints" / "states").iterdir()) for folder in folders[:2])
    assert not any(map(os.path.exists, folders[2:]))  # what waited was not begun


def lives(pid: int) -> bool:
    """Checks whether a process is there and does not only wait for its parent to take notice."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.long
def test_a_search_goes_on(cli, tmp_path):
    search = (
        "sweeper=optuna",
        "hydra.sweeper.n_trials=1",
        "loss.temperature=interval(1,20)",
        "loss.alpha=choice(.1,.9)",
    )
    for trials in (1, 2):
        cli("distill", "-m", *search, *QUICK)
        with sqlite3.connect(tmp_path / "sweep" / "study.db") as study:
            values = [value for (value,) in study.execute("select value from trial_values")]
        assert len(values) == trials
        best = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
        assert best["best_value"] == pytest.approx(max(values))
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "control")) == 1


@pytest.mark.long
def test_successive_halving_goes_on_after_a_kill(cli, tmp_path):
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 20, marker: {tmp_path}/struck}}"
    command = (
        "distill", "-m", "sweeper=halving", *QUICK, harm, "hydra.sweeper.n_trials=2", "hydra.sweeper.rungs=2",
        "hydra.sweeper.eta=2", "hydra.sweeper.fresh_seeds=1", "loss.temperature=tag(log,interval(1.0,16.0))",
    )  # fmt: skip
    assert cli(*command, check=False).returncode != 0  # a job of two epochs: in the second rung
    folder = tmp_path / "sweep"
    made = {path: path.stat().st_mtime_ns for path in folder.glob("rung0/*/metrics.json")}
    assert len(made) == 2
    cli(*command)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert [len([*folder.glob(f"{place}/*/metrics.json")]) for place in ("rung0", "rung1", "fresh")] == [2, 1, 1]
    assert len((folder / "rungs.csv").read_text().splitlines()) == 1 + 2 + 1
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "teacher")) == 1
