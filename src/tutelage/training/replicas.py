"""Ranks that each hold the whole network and average their gradients: Lightning's DDP, told what a training needs.

DDP waits for a gradient of every parameter, and copies all of rank 0's buffers before every step. An objective may
leave a part of a network out (a hint at an inner layer reaches no classifier), and most buffers are constants.
"""

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from tutelage.compat.lightning import add_ddp_arguments
from tutelage.compat.torch import leave_out_of_ddp
from tutelage.data.module import Data
from tutelage.losses.base import contract, hooks
from tutelage.seeding import seeded
from tutelage.training.gradient_checks import leaves
from tutelage.training.module import SupervisedModule


class Replicated(DDPStrategy):
    """Lightning's DDP, on ranks that :mod:`tutelage.runtime.distributed` has started."""

    def configure_ddp(self) -> None:
        """Wraps the module: its shapes are known by now, and it is on its device."""
        learner = self.lightning_module
        if isinstance(learner, SupervisedModule):
            data, accumulated = learner.trainer.datamodule, learner.trainer.accumulate_grad_batches  # type: ignore[attr-defined]
            add_ddp_arguments(self, graph_arguments(learner, data, accumulated))
            leave_out_buffers(learner)
        super().configure_ddp()


def graph_arguments(learner: SupervisedModule, data: Data, accumulated: int = 1) -> dict[str, bool]:
    """Returns what DDP must know of parameters without a gradient.

    Nothing where the objective reaches every parameter; ``static_graph`` where it leaves some out, the same ones at
    each step; ``find_unused_parameters``, which searches at each step, where a loss may change over the epochs.

    Args:
        learner: has met its data.
        data: what it trains on.
        accumulated: batches in an optimizer step; a graph is static for DDP only if each of them is averaged.
    """
    if any(_may_change(loss) for _, loss in learner.objective.losses()):
        return {"find_unused_parameters": True}
    if not unreached(learner, data):
        return {}
    return {"static_graph": True} if accumulated == 1 else {"find_unused_parameters": True}


def _may_change(loss: nn.Module) -> bool:
    """Checks whether a loss hears of epochs and does not say that its graph stays the same."""
    return "on_epoch_start" in hooks(loss) and not contract(loss).fixed_graph


def unreached(learner: SupervisedModule, data: Data) -> list[str]:
    """Returns the names of the parameters that learn and have no part in the objective, tried on a few examples."""
    device, training = learner.network_device(), learner.training
    batch = {name: value.to(device) for name, value in data.sample(min(8, data.batch_size)).items()}
    learner.eval()
    with torch.enable_grad(), seeded(learner.seed, "shapes"):
        loss, _ = learner.objective(learner.signals(batch))
    learner.train(training)
    reached = {id(parameter) for parameter in leaves(loss)}
    return [name for name, x in learner.named_parameters() if x.requires_grad and id(x) not in reached]


def leave_out_buffers(learner: nn.Module) -> list[str]:
    """Tells DDP which buffers need no copy of rank 0's before a step; returns the names of the others.

    Left out are buffers that no state has, hence constants, and those of a loss that keeps them equal on all ranks by
    itself (``same_on_ranks``): a bank of all examples would else be sent at every step.
    """
    kept = learner.state_dict(keep_vars=True).keys()
    alike: list[str] = []
    others: list[str] = []
    for path, part in learner.named_modules():
        for name, _ in part.named_buffers(recurse=False):
            full = f"{path}.{name}" if path else name
            (alike if full not in kept or contract(part).same_on_ranks else others).append(full)
    leave_out_of_ddp(learner, alike)
    return others
