"""`tutelage status`: what a job's folder says of it, and which jobs have died."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import time

import odd_documents
import pytest

from tutelage.runtime.status import JobStatus, jobs, table, terminal

AT = {"stage": "student", "epoch": 2, "epochs": 10, "step": 250, "steps": 1000, "seconds_left": 3725.0, "best": 0.915}


def write(folder, state, beat=0.0, pid=None, host=None, why=None, progress=AT, clock=0.0):
    """``beat``: seconds since the last sign of life; ``clock``: by how much the clock of the job's machine is ahead."""
    folder.mkdir(parents=True)
    status = {"state": state, "pid": pid or os.getpid(), "host": host or socket.gethostname(), "why": why}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "heartbeat.json").write_text(json.dumps({"time": time.time() - beat + clock, "progress": progress}))
    os.utime(folder / "heartbeat.json", (time.time() - beat,) * 2)
    if state == "COMPLETE":
        figures = {"student": {"best": {"val": {"accuracy": 0.875}}}}
        (folder / "metrics.json").write_text(json.dumps(figures))
    return folder


@pytest.fixture
def gone():
    """The number of a process that is no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_job_that_gives_signs_of_life_runs(tmp_path):
    one = JobStatus.read(write(tmp_path / "a", "RUNNING"))
    assert (one.state, one.progress, one.best) == ("RUNNING", AT, None)


@pytest.mark.parametrize("state", ["COMPLETE", "FAILED", "PREEMPTED"])
def test_a_job_that_ended_is_not_dead_however_long_ago(tmp_path, gone, state):
    assert JobStatus.read(write(tmp_path / "a", state, beat=1e6, pid=gone)).state == state


def test_a_job_whose_process_is_gone_is_dead(tmp_path, gone):
    one = JobStatus.read(write(tmp_path / "a", "RUNNING", pid=gone))
    assert (one.state, one.why) == ("DEAD", f"process {gone} is gone")


def test_a_job_that_waits_is_dead_once_its_process_is_gone(tmp_path, gone):
    one = JobStatus.read(write(tmp_path / "a", "WAITING", pid=gone))
    assert (one.state, one.why) == ("DEAD", f"process {gone} is gone")
    assert JobStatus.read(write(tmp_path / "b", "WAITING", beat=200)).state == "WAITING"  # its heart rests meanwhile
    assert JobStatus.read(write(tmp_path / "c", "WAITING", beat=200, pid=gone, host="elsewhere")).state == "WAITING"


def test_a_job_elsewhere_is_dead_once_it_is_silent(tmp_path, gone):
    assert JobStatus.read(write(tmp_path / "a", "RUNNING", pid=gone, host="elsewhere")).state == "RUNNING"
    one = JobStatus.read(write(tmp_path / "b", "RUNNING", pid=gone, host="elsewhere", beat=200))
    assert (one.state, one.why) == ("DEAD", "no heartbeat for 3 min 20 s")


@pytest.mark.parametrize("clock", [-300.0, -86400.0, 300.0, 86400.0])
def test_the_clock_of_a_jobs_machine_does_not_count(tmp_path, clock):
    assert JobStatus.read(write(tmp_path / "a", "RUNNING", host="elsewhere", clock=clock)).state == "RUNNING"
    assert JobStatus.read(write(tmp_path / "b", "RUNNING", host="elsewhere", beat=200, clock=clock)).state == "DEAD"


def test_the_clock_of_the_machine_that_asks_does_not_count(tmp_path, monkeypatch):
    folder = write(tmp_path / "a", "RUNNING", host="elsewhere")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert JobStatus.read(folder).state == "RUNNING"


def test_status_leaves_nothing_in_a_jobs_folder(tmp_path):
    folder = write(tmp_path / "a", "RUNNING", host="elsewhere")
    before = set(folder.iterdir())
    JobStatus.read(folder)
    assert set(folder.iterdir()) == before


def test_a_job_that_has_not_begun_to_train_runs(tmp_path):
    folder = write(tmp_path / "a", "RUNNING", progress={})
    (folder / "heartbeat.json").unlink()
    assert JobStatus.read(folder).state == "RUNNING"


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("status.json", '{"state": "COMP', "status.json can't be read: Unterminated string"),
        ("status.json", "", "status.json can't be read"),
        ("status.json", "[]", "status.json can't be read: expected dict"),
        ("status.json", '{"pid": 1}', "status.json: expected one of the states COMPLETE, .*; found None"),
        ("heartbeat.json", '{"time"', "heartbeat.json can't be read"),
        ("metrics.json", '{"student": {', "metrics.json can't be read"),
        ("metrics.json", '{"student": {}}', "metrics.json: student.best: expected a mapping, found nothing"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, file, content, why):
    folder = write(tmp_path / "a", "COMPLETE")
    (folder / file).write_text(content)
    one = JobStatus.read(folder)
    assert one.state == "DAMAGED"
    assert re.match(why, one.why)


def test_an_evaluation_has_no_student(tmp_path):
    folder = write(tmp_path / "a", "COMPLETE")
    (folder / "metrics.json").write_text('{"figures": {"accuracy": 0.5}}')
    one = JobStatus.read(folder)
    assert (one.state, one.best) == ("COMPLETE", None)


def test_a_link_to_a_job_counts_once_and_none_is_followed_in_circles(tmp_path):
    job = write(tmp_path / "elsewhere/a", "COMPLETE")
    (root := tmp_path / "links").mkdir()
    (root / "b").symlink_to(job)
    (root / "c").symlink_to(job)
    for name, place in (("loop", "."), ("itself", "itself"), ("nowhere", "nothing"), ("above", job.parent)):
        (root / name).symlink_to(place)
    assert [one.folder for one in jobs(root)] == [root / "b"]
    assert [one.folder for one in jobs(tmp_path)] == [job]


def test_the_command_shows_all_jobs_and_counts_them(main, tmp_path, gone):
    write(tmp_path / "s/seed=0", "COMPLETE")
    write(tmp_path / "s/seed=1", "RUNNING")
    write(tmp_path / "s/seed=2", "RUNNING", pid=gone)
    write(tmp_path / "s/seed=3", "FAILED", why="loss.temperature must be a number > 0; found -1 [sic]")
    (write(tmp_path / "s/seed=4", "COMPLETE") / "metrics.json").write_text("{")
    assert [one.folder.name for one in jobs(tmp_path / "s")] == [f"seed={n}" for n in range(5)]
    answer = main("status", "s")
    assert answer.code == 0
    rows = {line.split()[0]: " ".join(line.split()) for line in answer.out.splitlines() if line.split()}
    assert rows["seed=0"] == "seed=0 COMPLETE 87.50 %"
    assert rows["seed=1"] == "seed=1 RUNNING student: epoch 3/10, step 250/1000 1 h 02 min 91.50 %"
    assert rows["seed=2"].startswith(f"seed=2 DEAD process {gone} is gone")
    assert "found -1 [sic]" in rows["seed=3"]
    assert rows["seed=4"].startswith("seed=4 DAMAGED metrics.json can't be read")
    assert answer.out.splitlines()[-1] == "1 COMPLETE, 1 RUNNING, 1 DEAD, 1 FAILED, 1 DAMAGED"


def test_a_folder_without_jobs_is_named(main):
    answer = main("status", "nowhere")
    assert answer.code == 1
    assert "no job in nowhere: there is no status.json below it" in answer.message


@pytest.mark.parametrize(("columns", "width"), [("20", 60), ("100", 100)])
def test_a_terminal_in_which_no_table_fits_gets_one_all_the_same(monkeypatch, columns, width):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal(stream).width == width


def _shown(root):
    console = terminal(io.StringIO())
    console.print(table(list(jobs(root)), root))
    return console.file.getvalue()


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETE", "WAITING"])
@pytest.mark.parametrize("file", ["status.json", "heartbeat.json", "metrics.json"])
def test_no_odd_file_ends_status(tmp_path, state, file):
    folder = write(tmp_path / "odd", state)
    write(tmp_path / "other", "COMPLETE")
    path = folder / file
    if not path.exists():
        path.write_text("{}")
    for document in odd_documents.spoilt(json.loads(path.read_text())):
        odd_documents.write(path, document)
        shown = _shown(tmp_path)
        assert re.search(r"other +COMPLETE", shown)
        assert re.search(r"odd +(RUNNING|COMPLETE|WAITING|DEAD|FAILED|DAMAGED)", shown)
        assert "\x1b" not in shown
    path.write_text("{}")
    for _ in odd_documents.damages(path):
        assert re.search(r"other +COMPLETE", _shown(tmp_path))
        if os.path.lexists(path) and (file != "metrics.json" or state == "COMPLETE") and path.exists():
            assert re.search(rf"DAMAGED +{file} can't be read", _shown(tmp_path))


def test_no_text_of_a_folder_commands_the_terminal(tmp_path):
    evil = "\x1b]0;owned\x07\x1b[2J\u202e[red]x"
    write(tmp_path / f"a{evil}b", "FAILED", why=f"it {evil}\nfailed\r")
    shown = _shown(tmp_path)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert r"\x1b[2J" in shown
