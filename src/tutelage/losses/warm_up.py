"""A loss whose weight grows over the first epochs."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError


class WarmUp(nn.Module):
    """``min((e + 1) / epochs, 1)`` times a loss, in epoch e counted from 0; part of the published DKD and DTKD.

    mdistiller counts epochs from 1, so that the first of 20 already has a weight of 1/20.

    Args:
        loss: any loss.
        epochs: from when on it has its full weight.

    Attributes:
        factor: the weight now, saved with the state.

    Raises:
        TutelageError: fewer than 1 epoch.
    """

    factor: Tensor

    def __init__(self, loss: nn.Module, epochs: int = 20):
        super().__init__()
        if epochs < 1:
            raise TutelageError(f"WarmUp.epochs: expected 1 or more, found {epochs}")
        self.loss, self.epochs = loss, epochs
        self.register_buffer("factor", torch.tensor(1.0 / epochs))

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Sets the weight for ``epoch``, counted from 0."""
        self.factor.fill_(min((epoch + 1) / self.epochs, 1.0))

    def forward(self, **signals: Tensor) -> Tensor:
        """The loss, a scalar."""
        result: Tensor = self.factor * self.loss(**signals)
        return result
