"""A sweep's end in the processes that run its jobs: they save, and stay no longer than the process that started them.

joblib's launcher starts workers that run one job after another. A signal to end reaches the launching process alone,
and joblib would kill workers at once; and if that process is killed itself, its workers would go on or wait.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType

from tutelage.compat.joblib import WORKER, worker_pids
from tutelage.errors import TutelageError
from tutelage.runtime.json_files import read_json
from tutelage.runtime.signals import ENDING, INTERRUPTED, PREEMPTED, exit_code, requests

SAVING = 60.0  # seconds that jobs have to save their states
_TERMINAL = 2.0  # seconds in which a Ctrl-C, which a terminal sends to workers as well, has ended what trains nothing
_POLL = 0.2


class _Worker:
    """This process, where it is a worker of joblib's.

    Attributes:
        works: whether a job runs.
        ends: whether it was asked to end, so that it takes no further job.
    """

    def __init__(self) -> None:
        self.parent, self.works, self.ends = os.getppid(), False, False
        threading.Thread(target=self._watch, daemon=True).start()

    def orphaned(self) -> bool:
        """Checks whether the process that started this one is gone."""
        return os.getppid() != self.parent

    def _watch(self) -> None:
        while not self.orphaned():
            time.sleep(_POLL)
        if not self.works:
            os._exit(PREEMPTED)
        os.kill(os.getpid(), signal.SIGTERM)  # the job saves its state


@cache
def _this_worker() -> _Worker:
    return _Worker()


@contextmanager
def in_worker() -> Iterator[None]:
    """Context manager of a job: a worker of joblib ends when it is asked to, or when the process that began it is gone.

    Raises:
        SystemExit: the worker was asked to end during an earlier job.
    """
    if not multiprocessing.current_process().name.startswith(WORKER):  # others, such as of a pool, end by signals
        yield
        return
    worker = _this_worker()
    if worker.ends:
        raise SystemExit(PREEMPTED)
    worker.works = True
    try:
        yield
    finally:
        worker.works = False
        worker.ends = bool(requests.received)
        if worker.orphaned():
            os._exit(exit_code())
        _note_signals(worker)


def _note_signals(worker: _Worker) -> None:
    """Makes a signal between two jobs a request to take no other: a worker that died would end all others."""

    def note(number: int, frame: FrameType | None) -> None:
        worker.ends = True

    for number in (*ENDING, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, note)


def stop_workers_first(folder: Path, goes_on: str = "") -> None:
    """Makes the launching process of a sweep end when its jobs have saved: with 143, after Ctrl-C with 130.

    A second signal ends it at once.

    Args:
        folder: of the sweep.
        goes_on: said where jobs go on without this process.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        pids = [] if stopping else worker_pids()
        running = [path for path in folder.rglob("status.json") if _runs(path, pids)] if pids else []
        stopping = True
        if running:
            _say(f"{len(running)} jobs save their states, then the sweep stops; once more to stop without saving")
            _wait_for(running, pids, _TERMINAL if number == signal.SIGINT else 0.0)
        else:
            _say(goes_on or "tutelage: the sweep is stopped")
        raise SystemExit(INTERRUPTED if number == signal.SIGINT else PREEMPTED)

    for number in (*ENDING, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def _wait_for(running: list[Path], pids: list[int], untold: float) -> None:
    """Tells workers to end, after as many seconds, and waits until their jobs have."""
    began, told = time.monotonic(), False
    while any(_runs(path, pids) for path in running) and time.monotonic() < began + SAVING:
        if not told and time.monotonic() >= began + untold:
            told = True
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        time.sleep(_POLL)


def _runs(path: Path, pids: list[int]) -> bool:
    """Checks whether the job of a ``status.json`` runs in one of the processes."""
    try:
        document = read_json(path)
        return document.get("state") == "RUNNING" and document.get("pid") in pids
    except (AttributeError, TutelageError):
        return False


def _say(text: str) -> None:
    os.write(2, f"\n{text}\n".encode())  # not by print, which the signal may have interrupted
