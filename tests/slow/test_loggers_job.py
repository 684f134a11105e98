"""Jobs with real loggers: every training is a run of its own, in the folder of the job that trained it."""

import csv
import json

import pytest
from command import TINY
from runs import status

pytest.importorskip("wandb", reason="comes with the extra wandb")
pytest.importorskip("mlflow", reason="comes with the extra mlflow")
from mlflow.tracking import MlflowClient
from wandb_file import offline_runs

pytestmark = pytest.mark.long

ALL = ("logger=[tensorboard,wandb,mlflow,csv]", "logger.wandb.offline=true", "callbacks.progress=null")


def mlflow_runs(folder, monkeypatch):
    """Stage → (tags, steps and values of val/accuracy) of the runs in a job's folder."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(f"file:{folder}/mlruns")
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = {}
    for run in client.search_runs(experiments):
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "val/accuracy")
        found.setdefault(run.data.tags["stage"], []).append((run.data.tags, {one.step: one.value for one in history}))
    return found


def csv_column(folder, stage, name="val/accuracy"):
    with open(folder / "csv" / stage / "metrics.csv", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.parametrize("launcher", ["basic", "stacked"])
def test_a_multirun_with_four_loggers_keeps_each_training_apart(main, tmp_path, monkeypatch, launcher):
    monkeypatch.chdir(tmp_path)
    place = ("hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}", f"launcher={launcher}")
    answer = main("distill", "-m", *TINY, *ALL, "seed=0,1", *place)
    assert answer.code == 0, answer.message
    ids = []
    for number, job in enumerate(tmp_path / "sweep" / name for name in "01"):
        stages = ["control", "student"] + ["teacher"] * (number == 0)  # the second job finds the teacher trained
        facts = json.loads((job / "checkpoints" / "stage.json").read_text())
        assert facts.get("stacked", 1) == (4 if launcher == "stacked" else 1)
        kept = offline_runs(job)
        assert sorted(kept) == stages
        for stage, [run] in kept.items():
            assert run.group == f"sweep/{number}"
            assert {"loss", "optimizer", "network", "seed"} <= run.config
            assert [row["val/accuracy"] for row in run.history if "val/accuracy" in row] == csv_column(job, stage)
            ids.append(run.id)
        assert sorted(mlflow_runs(job, monkeypatch)) == stages
        for stage, [(tags, curve)] in mlflow_runs(job, monkeypatch).items():
            assert tags["job"] == f"sweep/{number}"
            assert list(curve.values()) == csv_column(job, stage)
        assert len(csv_column(job, "teacher")) == 2  # copied
        made = json.loads((job / "artifacts.json").read_text())
        assert made["teacher"]["runs"]["wandb"]["job"] == str(tmp_path / "sweep/0")  # linked
    assert len(set(ids)) == 5
    teachers = [csv_column(tmp_path / "sweep" / name, "teacher") for name in "01"]
    assert teachers[0] == teachers[1]


def test_a_killed_training_goes_on_in_its_runs(cli, tmp_path, monkeypatch):
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 25, marker: {tmp_path / 'm'}}}"
    command = ("distill", *TINY, *ALL, "callbacks.recovery.every_n_steps=6", "hydra.run.dir=run", harm)
    assert cli(*command, check=False).returncode == -9
    cli(*command)
    assert status(tmp_path / "run")["state"] == "COMPLETE"
    assert len({run.id for run in offline_runs(tmp_path / "run")["student"]}) == 1
    [(_, curve)] = mlflow_runs(tmp_path / "run", monkeypatch)["student"]
    assert len(curve) == 2
    assert csv_column(tmp_path / "run", "student.2") == [curve[max(curve)]]


def test_a_job_of_one_logger_without_tensorboard_writes_nothing_for_it(main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main("distill", *TINY, "logger=csv", "callbacks.progress=null", "hydra.run.dir=run").code == 0
    assert not (tmp_path / "run" / "tensorboard").exists()
    for stage in ("teacher", "control", "student"):
        assert len(csv_column(tmp_path / "run", stage)) == 2
