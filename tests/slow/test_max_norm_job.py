"""``callbacks=max_norm`` through a crash and on two ranks."""

import pytest
import torch
from command import TINY
from resumed import crashed_ends_like_whole

from tutelage.checkpoints.weights import read_state

pytestmark = pytest.mark.slow

LIMIT = 0.6
HELD = (
    *TINY, "callbacks=max_norm", f"callbacks.max_norm.limit={LIMIT}", "callbacks.recovery.every_n_steps=6",
    "optimizer.lr=0.01", "logger=none",
)  # fmt: skip


@pytest.mark.long
def test_a_crashed_run_goes_on_to_the_same_bits_and_two_ranks_hold_the_same_weights(main, cli, tmp_path):
    def run(name, *more):
        return "distill", *HELD, f"hydra.run.dir={tmp_path}/{name}/run", f"paths.outputs={tmp_path}/{name}", *more

    crashed_ends_like_whole(main, run, tmp_path)
    cli(*run("two", "trainer=ddp", "trainer.accelerator=cpu"))
    for stage in ("run/checkpoints", "artifacts/teacher/*", "artifacts/control/*"):
        [one], [two] = (list((tmp_path / name).glob(f"{stage}/last.safetensors")) for name in ("whole", "two"))
        one, two = read_state(one), read_state(two)
        longest = [float(x.norm(dim=1).max()) for name, x in two.items() if name.endswith("weight")]
        assert longest == pytest.approx([LIMIT] * 2)
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)
