"""``optimizer=dot`` from the command line: a crash, and alpha = 0."""

import pytest
from command import TINY
from resumed import crashed_ends_like_whole
from runs import figures

pytestmark = pytest.mark.slow

JOB = (*TINY, "optimizer=dot", "loss=fitnet", "callbacks.recovery.every_n_steps=6", "logger=none")


@pytest.mark.long
def test_a_crashed_run_goes_on_to_the_same_bits_and_without_teachers_it_is_the_control(main, tmp_path):
    def run(name, *more):
        return "distill", *JOB, f"hydra.run.dir={tmp_path}/{name}/run", f"paths.outputs={tmp_path}/{name}", *more

    crashed_ends_like_whole(main, run, tmp_path)
    assert figures(tmp_path / "whole/run")["gain"]["last"]["nll"] != 0
    alone = ("loss.alpha=0", f"paths.artifacts={tmp_path}/whole/artifacts")
    assert main(*run("alone", *alone)).code == 0
    assert figures(tmp_path / "alone/run")["gain"]["last"]["nll"] == 0
