"""Ctrl-C: the state is saved, and the same command goes on to the same bits."""

import signal

import pytest
from command import TINY
from runs import figures, status, weights

pytestmark = pytest.mark.slow

QUICK = (*TINY, "logger=none", "callbacks.progress=null")


@pytest.fixture
def _listens():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.long
@pytest.mark.usefixtures("_listens")
def test_after_ctrl_c_the_same_command_goes_on(main, tmp_path):
    def run(name, *more):
        return "distill", *QUICK, f"hydra.run.dir={tmp_path}/{name}/run", f"paths.outputs={tmp_path}/{name}", *more

    assert main(*run("whole")).code == 0
    harm = f"+callbacks.harm={{_target_: faults.InterruptAt, stage: student, step: 22, marker: {tmp_path / 'struck'}}}"
    stopped = main(*run("stopped", harm))
    assert stopped.code == 130
    assert (status(tmp_path / "stopped/run")["state"], status(tmp_path / "stopped/run")["why"]) == (
        "PREEMPTED",
        "Ctrl-C",
    )
    assert list((tmp_path / "stopped/run/checkpoints/states").glob("step=00000022-*.ckpt"))
    assert f"run the same command with hydra.run.dir='{tmp_path}/stopped/run'" in stopped.message + stopped.out
    assert main(*run("stopped", harm)).code == 0
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert figures(tmp_path / "stopped/run") == figures(tmp_path / "whole/run")
