"""A job under SLURM, with a stand-in for scontrol; tests/cluster has a real one."""

import os
import stat

import pytest

from tutelage.errors import TutelageError
from tutelage.runtime import slurm

RUNNING = "JobId=7 Requeue=1 Restarts=0 JobState=RUNNING Reason=None PreemptEligibleTime=now PreemptTime=None"
PREEMPTED = RUNNING.replace("PreemptTime=None", "PreemptTime=2026-11-21T12:00:00")


@pytest.fixture
def said(tmp_path, monkeypatch):
    """``said(line)`` makes a scontrol that answers with ``line``; the file ``asked`` has what it was asked."""

    def stand_in(line):
        script = tmp_path / "scontrol"
        script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "{line}"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        return tmp_path / "asked"

    return stand_in


@pytest.mark.parametrize(
    ("line", "noticed", "again"),
    [
        (RUNNING, True, True),
        (RUNNING, False, False),  # somebody's kill
        (PREEMPTED, False, True),
        (RUNNING.replace("RUNNING", "CANCELLED"), True, False),
        (RUNNING.replace("Requeue=1", "Requeue=0"), True, False),
        ("slurm_load_jobs error: Invalid job id specified", True, False),
    ],
)
def test_a_job_is_queued_again_after_a_notice_or_a_preemption_alone(said, line, noticed, again):
    asked = said(line)
    slurm.queue_again(noticed)
    assert asked.read_text().splitlines() == ["-o show job 7"] + ["requeue 7"] * again


def test_a_job_of_an_array_has_a_name_of_two_numbers(said, monkeypatch):
    asked = said(RUNNING)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    slurm.queue_again(True)
    assert asked.read_text().splitlines()[-1] == "requeue 5_2"


def test_without_scontrol_a_job_still_ends(monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", "/nowhere")
    slurm.queue_again(True)
    assert "scontrol -o show job 7: " in caplog.text


def test_elsewhere_nothing_happens(said, monkeypatch):
    asked = said(RUNNING)
    monkeypatch.delenv("SLURM_JOB_ID")
    before = dict(os.environ)
    slurm.queue_again(True)
    slurm.take_rank()
    assert not asked.exists()
    assert dict(os.environ) == before


def test_a_task_of_several_is_a_rank(said, monkeypatch):
    said("node3\nnode4")
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    given = {"NTASKS": "4", "PROCID": "3", "LOCALID": "1", "NODEID": "1", "JOB_NODELIST": "node[3-4]"}
    for name, value in given.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    slurm.take_rank()
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    assert [os.environ[name] for name in names] == ["3", "1", "1", "4", "node3", "20007"]


@pytest.mark.parametrize(
    ("nodes", "count", "first"),
    [("node7,node9", "2", "node7"), ("node[3-4]", "1", "127.0.0.1"), ("node[3-4]", "2", None)],
)
def test_without_scontrol_the_first_node_is_read_from_the_list_or_asked_for(monkeypatch, nodes, count, first):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", "/nowhere")
    given = {"JOB_ID": "7", "NTASKS": "2", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NODELIST": nodes}
    for name, value in {**given, "NNODES": count}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    if first is None:
        with pytest.raises(TutelageError, match=r"SLURM's nodes node\[3-4\]: scontrol"):
            slurm.take_rank()
    else:
        slurm.take_rank()
        assert os.environ["MASTER_ADDR"] == first
