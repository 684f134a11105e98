"""A limit on the norm of each unit's incoming weights."""

from typing import Any, cast

import lightning as L
import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.models.blocks import WITH_UNITS
from tutelage.training.fast_loop import Quiet
from tutelage.training.module import SupervisedModule


class MaxNorm(Quiet):
    """Max-norm: after each optimizer step w ← w · min(1, limit / ‖w‖₂) for the incoming weights w of each unit.

    A unit is a row of a linear layer's weight, or an output channel of a convolution (transposed ones are left alone);
    biases are free. Srivastava et al., "Dropout" (JMLR 2014), section 5.1, with limits of 3 to 4; the weight limits of
    the teacher in Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), section 3.

    The network that learns is held from its first step on, wherever a state is saved. It has no state of its own, and
    every rank does the same to the same weights.

    Args:
        limit: the largest norm.

    Raises:
        TutelageError: ``limit`` is not above 0.
    """

    def __init__(self, limit: float):
        if not limit > 0:
            raise TutelageError(f"callbacks.max_norm.limit must be above 0; found {limit}")
        self.limit = limit
        self._held: list[Tensor] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finds the weights.

        Raises:
            TutelageError: no layer of the network has a unit.
        """
        net = cast(SupervisedModule, pl_module).student.net.net
        self._held = [layer.weight for layer in net.modules() if isinstance(layer, WITH_UNITS)]
        if not self._held:
            raise TutelageError(f"callbacks.max_norm: no linear layer and no convolution in {type(net).__name__}")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Scales back what the step has made too long."""
        for weight in self._held:
            limit_norm_(weight, self.limit)


@torch.no_grad()
def limit_norm_(weight: Tensor, limit: float) -> None:
    """Scales, in place, every row of ``weight`` [units, …] that is longer than ``limit`` to that length."""
    norm = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
    weight.mul_(limit / norm.clamp(min=limit))
