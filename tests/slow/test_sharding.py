"""`trainer=fsdp` on two gloo ranks is `trainer=ddp`, with half of every network on each."""

import json

import pytest
import torch
from command import SPLITS, tutelage
from runs import artifacts, figures, first_steps, scalars, status, weights

from tutelage.checkpoints.weights import read_state

pytestmark = [pytest.mark.slow, pytest.mark.long]

# A part that the loss learns, dropout, a schedule; blocks as small as they come.
JOB = (
    "trainer.max_epochs=3", *SPLITS, "trainer.accelerator=cpu", "loss=[soft_target,fitnet]", "scheduler=cosine",
    "model@teacher=mlp", "model@student=mlp",
    "teacher.net={widths: [48, 24], dropout: 0.2}", "student.net={widths: [12], dropout: 0.3}",
    "trainer.log_every_n_steps=5", "callbacks.recovery.every_n_steps=6", "paths.artifacts=shop", "hydra.run.dir=run",
)  # fmt: skip
FSDP = (*JOB, "trainer=fsdp", "trainer.strategy.block=500")


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    tutelage("distill", *JOB, "trainer=ddp", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    look = f"+callbacks.look={{_target_: shard_watcher.WriteShards, folder: {folder / 'said'}}}"
    tutelage("distill", *FSDP, look, cwd=folder)
    return folder


def files(folder):
    """Stage and weights → state."""
    places = {kind: artifacts(folder / "shop", kind)[0] for kind in ("teacher", "control")}
    places["student"] = folder / "run" / "checkpoints"
    return {
        (kind, name): read_state(place / f"{name}.safetensors")
        for kind, place in places.items()
        for name in ("last", "best")
    }


def test_weights_and_figures_are_those_of_ddp(ddp, fsdp):
    """Whole in their files, which one process reads, and equal to the order in which float32 adds."""
    one, two = files(ddp), files(fsdp)
    assert len(one) == 6
    for kind, state in one.items():
        assert {name: x.shape for name, x in state.items()} == {name: x.shape for name, x in two[kind].items()}
        for name, expected in state.items():
            torch.testing.assert_close(two[kind][name], expected, rtol=1e-3, atol=2e-5)
    for role in ("teacher", "control", "student"):
        for split in ("train", "val", "test"):
            found, expected = (figures(folder / "run")[role]["last"][split] for folder in (fsdp, ddp))
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert figures(fsdp / "run")["student"]["multiply_adds"] == figures(ddp / "run")["student"]["multiply_adds"]


def test_each_rank_holds_half_of_every_network(fsdp):
    said = {path.stem: json.loads(path.read_text()) for path in (fsdp / "said").iterdir()}
    assert sorted(said) == [f"{stage}-{rank}" for stage in ("control", "student", "teacher") for rank in (0, 1)]
    assert sorted(said["student-0"]) == ["student", "teacher"]
    for stage in ("control", "student", "teacher"):
        for source, found in said[f"{stage}-0"].items():
            other = said[f"{stage}-1"][source]
            assert found["whole"] == other["whole"] == []
            assert found["here"] + other["here"] == found["all"] > 900
            assert 0.4 < found["here"] / found["all"] < 0.6


def test_killed_it_goes_on_to_the_same_bits(fsdp, cli, tmp_path):
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 40, marker: {tmp_path / 'm'}, rank: 1}}"
    command = ("distill", *FSDP, harm)
    assert cli(*command, check=False).returncode != 0
    assert (tmp_path / "m").exists()
    assert not (tmp_path / "run" / "metrics.json").exists()
    cli(*command)
    assert status(tmp_path / "run")["state"] == "COMPLETE"
    assert weights(tmp_path / "run") == weights(fsdp / "run")
    assert figures(tmp_path / "run") == figures(fsdp / "run")
    assert (
        scalars(tmp_path / "run" / "tensorboard")["student/train/loss"]
        == (scalars(fsdp / "run" / "tensorboard")["student/train/loss"])
    )
    first, later = first_steps(tmp_path / "run" / "tensorboard" / "student")
    assert first < 6 < 36 <= later
