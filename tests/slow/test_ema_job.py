"""``callbacks=ema`` through a SIGKILL: the average goes on with the same bits, and teaches."""

import pytest
from command import TINY
from resumed import killed_ends_like_whole
from runs import artifacts

from tutelage.checkpoints.weights import digest, read_state

pytestmark = pytest.mark.slow

AVERAGED = (*TINY, "callbacks=ema", "callbacks.ema.decay=0.9", "callbacks.recovery.every_n_steps=6", "logger=none")


@pytest.mark.long
def test_a_killed_run_ends_in_the_same_averages(main, cli, tmp_path):
    def run(name, *more):
        return "distill", *AVERAGED, f"hydra.run.dir={tmp_path}/{name}/run", f"paths.outputs={tmp_path}/{name}", *more

    killed_ends_like_whole(main, cli, run, tmp_path)
    made = [artifacts(tmp_path / "whole/artifacts", kind) for kind in ("teacher", "control")]
    for [folder] in (*made, [tmp_path / "whole/run/checkpoints"]):
        assert digest(read_state(folder / "last.safetensors")) != digest(read_state(folder / "raw.safetensors"))
