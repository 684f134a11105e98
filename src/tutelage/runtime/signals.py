"""The signals that ask a process to end: SIGTERM, Ctrl-C, and SIGUSR1, by which clusters tell of a time limit."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from tutelage.runtime import distributed

PREEMPTED = 128 + signal.SIGTERM  # the exit code of a process that a SIGTERM ended
INTERRUPTED = 128 + signal.SIGINT  # and of one that Ctrl-C ended
ENDING = (signal.SIGTERM, signal.SIGUSR1)


@dataclass
class StopRequests:
    """The signals to end that this process got: there is one, as handlers of signals are the process's.

    Attributes:
        received: since the job began.
        pending: received during a training, which saves its state before it stops.
    """

    received: set[int] = field(default_factory=set)
    pending: set[int] = field(default_factory=set)

    def came(self, number: int) -> bool:
        """Checks whether a signal came, in a training or outside of one."""
        return number in self.received | self.pending

    def settle(self) -> None:
        """Counts pending signals as received, at the end of a training."""
        self.received |= self.pending
        self.pending.clear()


requests = StopRequests()


def exit_code() -> int:
    """Returns the exit code of a process that ends after a signal."""
    return INTERRUPTED if requests.came(signal.SIGINT) else PREEMPTED


def reason() -> str:
    """Returns the name of the signal that ended the process."""
    if requests.came(signal.SIGINT):
        return "Ctrl-C"
    return "SIGUSR1" if requests.came(signal.SIGUSR1) else "SIGTERM"


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """Makes SIGTERM and SIGUSR1 end the process with 143, Ctrl-C with 130, running every ``finally``.

    While Lightning fits, its own handler is in charge and :class:`tutelage.training.callbacks.recovery.Recovery` saves
    first: see :func:`sigterm_saves`.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        requests.received.add(number)
        raise SystemExit(exit_code())

    requests.received.clear()
    with _handled(stop):
        yield


@contextmanager
def sigterm_saves() -> Iterator[None]:
    """Context manager that leaves SIGTERM and Ctrl-C pending until Recovery has saved; then the process ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    requests.pending.clear()
    try:
        with _handled(_set_pending):
            yield
        if asked_to_stop():
            raise SystemExit(exit_code())
    finally:
        requests.settle()


def _set_pending(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        if number in requests.pending:
            raise SystemExit(INTERRUPTED)
        if distributed.is_main():  # not by print, which the signal may have interrupted
            os.write(2, b"\nCtrl-C: saving the state, then stopping; once more to stop without saving\n")
    requests.pending.add(number)


def asked_to_stop() -> bool:
    """Checks whether a signal to end arrived since :func:`sigterm_saves` began."""
    return bool(requests.pending)


def note_sigterm() -> None:
    """Makes SIGTERM only set a flag; Lightning's handler would stop the fit without saving."""
    if threading.current_thread() is threading.main_thread():
        for number in _signals():
            signal.signal(number, _set_pending)


def _signals() -> tuple[signal.Signals, ...]:
    """Returns the signals that ask a job to end; in the background, where Ctrl-C is ignored, without it."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    return ENDING if ignored else (*ENDING, signal.SIGINT)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Context manager in which ``handler`` answers the signals to end; does nothing in a thread, which gets none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _signals()}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
