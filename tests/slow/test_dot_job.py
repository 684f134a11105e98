"""``optimizer=dot`` from the command line: a crash, and alpha = 0."""

import pytest
from command import TINY
from runs import figures, weights

pytestmark = pytest.mark.slow

JOB = (*TINY, "optimizer=dot", "loss=fitnet", "callbacks.recovery.every_n_steps=6", "logger=none")


@pytest.mark.long
def test_a_crashed_run_goes_on_to_the_same_bits_and_without_teachers_it_is_the_control(main, tmp_path):
    def run(name, *more):
        return "distill", *JOB, f"hydra.run.dir={tmp_path}/{name}/run", f"paths.outputs={tmp_path}/{name}", *more

    assert main(*run("whole")).code == 0
    assert figures(tmp_path / "whole/run")["gain"]["last"]["nll"] != 0
    harm = f"+callbacks.harm={{_target_: faults.CrashAt, stage: student, step: 22, marker: {tmp_path / 'struck'}}}"
    assert main(*run("crashed", harm)).code == 1
    assert (tmp_path / "struck").exists()
    assert list((tmp_path / "crashed/run/checkpoints/states").glob("*.ckpt"))
    assert main(*run("crashed", harm)).code == 0
    assert weights(tmp_path / "crashed") == weights(tmp_path / "whole")
    alone = ("loss.alpha=0", f"paths.artifacts={tmp_path}/whole/artifacts")
    assert main(*run("alone", *alone)).code == 0
    assert figures(tmp_path / "alone/run")["gain"]["last"]["nll"] == 0
