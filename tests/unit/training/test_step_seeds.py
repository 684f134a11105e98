"""Every chance of a step, and the file that teaches, are those that were asked for."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from tutelage.pipeline import teachers
from tutelage.training.module import SupervisedModule


def draw(seed=0, epoch=0, batch=0, rank=0):
    module = SimpleNamespace(
        device=torch.device("cpu"), seed=seed, current_epoch=epoch, global_rank=rank,
        trainer=SimpleNamespace(accumulate_grad_batches=1), _ahead=None,
    )  # fmt: skip
    SupervisedModule.on_train_batch_start(module, {}, batch)
    return torch.rand(4).tolist()


def test_dropout_depends_on_seed_epoch_batch_and_rank():
    state = torch.get_rng_state()
    try:
        assert draw() == draw()
        others = [draw(seed=1), draw(epoch=1), draw(batch=1), draw(rank=1)]
        assert all(other != draw() for other in others)
    finally:
        torch.set_rng_state(state)


@pytest.mark.parametrize("weights", ["last", "best"])
def test_the_weights_that_were_chosen_teach(weights):
    node = OmegaConf.create({"checkpoint": None})
    teachers.fill(node, [Path("a")], weights)
    assert node.checkpoint == f"a/{weights}.safetensors"
