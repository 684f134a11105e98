"""How the launching process of a sweep ends."""

import os
import signal

import pytest

from tutelage.runtime.signals import ENDING
from tutelage.runtime.sweep_workers import stop_workers_first


@pytest.fixture(autouse=True)
def _handlers():
    before = {number: signal.getsignal(number) for number in (*ENDING, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)],
    ids=["TERM", "USR1", "INT"],
)
@pytest.mark.parametrize("goes_on", ["", "jobs go on"])
def test_without_workers_a_sweep_ends_at_once_and_says_so(tmp_path, capfd, number, code, goes_on):
    stop_workers_first(tmp_path, goes_on)
    with pytest.raises(SystemExit) as stop:
        os.kill(os.getpid(), number)
    assert stop.value.code == code
    assert capfd.readouterr().err.strip() == (goes_on or "tutelage: the sweep is stopped")
