"""Several processes that train at the same time, and that none of them outlives the job."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import tasks
from command import HELPERS, environment
from omegaconf import OmegaConf

from tutelage.errors import TutelageError
from tutelage.pipeline import workers
from tutelage.runtime import distributed


@pytest.fixture(autouse=True)
def _children_find_the_tasks(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    assert str(HELPERS) in os.environ["PYTHONPATH"]


def gone(pid, seconds=1200.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_how_many(monkeypatch):
    def count(asked, **trainer):
        return workers.workers(asked, OmegaConf.create({"devices": 1, **trainer}))

    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert count(None) == count(None, accelerator="gpu") == 4
    assert count(None, accelerator="cpu") == count(None, devices=[2]) == 1
    assert count(3) == count(3, accelerator="cpu") == 3
    monkeypatch.setattr(distributed, "is_up", lambda: True)
    assert count(3) == count(None) == 1  # ranks are at work already


@pytest.mark.slow
def test_every_task_is_done_by_processes_with_a_gpu_each(tmp_path, monkeypatch):
    """No GPU is needed: what is seen is an environment variable."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    places = [tmp_path / str(number) for number in range(3)]
    workers.run([partial(tasks.note, place) for place in places], 2, gpus=2)
    said = [place.read_text().split() for place in places]
    assert said[0][0] == said[2][0] != said[1][0]
    assert {words[0] for words in said}.isdisjoint({str(os.getpid())})
    assert [words[1] for words in said] == ["5", "7", "5"]
    assert {words[2] for words in said} == {"1"}
    assert {words[3] for words in said} == {"False"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"


@pytest.mark.parametrize(
    ("task", "said"),
    [(tasks.refuse, "^cannot do this$"), (tasks.die, "ended with exit code -9")],
)
@pytest.mark.long
def test_a_failure_says_why_and_ends_the_others(tmp_path, task, said):
    waiting = tmp_path / "waiting"
    with pytest.raises(TutelageError, match=said):
        workers.run([partial(tasks.after, waiting, task, tmp_path / "this"), partial(tasks.wait, waiting)], 2, 0)
    assert gone(int(waiting.read_text()))
    assert waiting.with_suffix(".ended").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
@pytest.mark.long
def test_what_ends_the_job_ends_its_processes(tmp_path, number, code):
    places = [tmp_path / name for name in "ab"]
    program = (
        "import signal, sys, tasks; from functools import partial; from pathlib import Path\n"
        "from tutelage.pipeline import workers; from tutelage.runtime import signals\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # tests that run in the background ignore it
        "    with signals.sigterm_ends():\n"
        "        workers.run([partial(tasks.wait, Path(name)) for name in sys.argv[1:]], 2, 0)\n"
    )
    (tmp_path / "program.py").write_text(program)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), *map(str, places)],
        env=environment(), start_new_session=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        pids = [int(tasks.written(place)) for place in places]
        os.kill(parent.pid, number)
        assert parent.wait(1200) in (code, -number)
        assert all(gone(pid) for pid in pids)
        assert all(place.with_suffix(".ended").exists() for place in places)
    finally:
        if parent.poll() is None:
            os.killpg(parent.pid, signal.SIGKILL)
