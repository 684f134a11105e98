"""Quantised and pruned students from the command line: through a kill, on two ranks, from their float version."""

import json

import pytest
import torch
from command import SPLITS
from resumed import killed_ends_like_whole

import tutelage as tt
from tutelage.checkpoints.weights import read_state

pytestmark = [pytest.mark.slow, pytest.mark.long]

PAIR = ("model@teacher=vgg4", "teacher.net.widths=[2,4,8]", "model@student=vgg4", "student.net.widths=[2,4,8]")
SMALL = (*PAIR, *SPLITS, "trainer.max_epochs=2", "logger=none", "callbacks.recovery.every_n_steps=6", "sources=frozen")
FLOAT = "student.init={layers: all, from: teacher}"
PRUNED = ("prune=magnitude", "stages.student.callbacks.prune.every_n_steps=5")


@pytest.mark.parametrize(
    "how", [("quantise=int4", *PRUNED), ("quantise=points",), ("quantise=buckets",), ("prune=channels",)], ids=str
)
def test_a_killed_run_ends_in_the_same_weights_masks_and_ranges(main, cli, tmp_path, how):
    def run(name, *more):
        place = f"hydra.run.dir={tmp_path}/{name}/run", f"paths.outputs={tmp_path}/{name}"
        return "distill", *how, FLOAT, *SMALL, *place, *more

    killed_ends_like_whole(main, cli, run, tmp_path)
    file = tmp_path / "whole/run/checkpoints/last.safetensors"
    net, x = tt.load(file).eval(), torch.randn(3, 1, 8, 8)
    if how[0] in ("quantise=points", "quantise=buckets"):
        assert torch.equal(net.plain().eval()(x), net(x))


@pytest.mark.parametrize("how", [("quantise=int8", *PRUNED), ("prune=channels",)], ids=str)
def test_two_ranks_have_the_ranges_masks_and_channels_of_one_process(main, cli, tmp_path, how):
    """Of a network without batch normalisation, whose statistics are those of a rank's share."""

    def run(name, *more):
        place = f"hydra.run.dir={tmp_path}/{name}/run", f"paths.outputs={tmp_path}/{name}"
        pair = ("model@teacher=mlp", "model@student=mlp", "teacher.net.widths=[16]", "student.net.widths=[16]")
        return "distill", *how, FLOAT, *pair, *SMALL[len(PAIR) :], *place, *more

    assert main(*run("one")).code == 0
    cli(*run("two", "trainer=ddp", "trainer.accelerator=cpu"))
    one, two = (read_state(tmp_path / name / "run/checkpoints/last.safetensors") for name in ("one", "two"))
    assert any(name.startswith("ranges") for name in one) == (how[0] == "quantise=int8")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-2, atol=1e-3, msg=lambda m, name=name: f"{name}: {m}")


def test_a_student_of_fewer_channels_is_a_smaller_network_from_the_teacher_s(main, tmp_path):
    how = ("prune=channels", FLOAT, *SMALL, "quantise=int8", "loss=fitnet", f"hydra.run.dir={tmp_path}/run")
    assert main("distill", *how, "student.channels.norm=1").code == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["student"]["parameters"] < 0.5 * metrics["teacher"]["parameters"]
    file = tmp_path / "run/checkpoints/last.safetensors"
    assert tt.load(file).eval()(torch.randn(3, 1, 8, 8)).shape == (3, 10)
