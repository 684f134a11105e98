"""Holds the statistics of a quantised student near the end of its training."""

from typing import cast

import lightning as L

from tutelage.errors import TutelageError
from tutelage.models.quantised.network import Quantised
from tutelage.training.module import SupervisedModule


class FollowsLength(L.Callback):
    """A callback whose course follows the length of the training, so that a longer one has other first epochs.

    Attributes:
        follows_length: whether it does so with its arguments.
    """

    follows_length = True


class FreezeStatistics(FollowsLength):
    """From an epoch on, ranges of activations and statistics of batch normalisation stay as they are.

    The weights then settle to the scales that the network is used with. The epoch alone decides, so a run that goes on
    after a kill holds them as it did. A student that isn't quantised is left alone.

    Args:
        after: share of the epochs before, in [0, 1]; 1: never.

    Raises:
        TutelageError: ``after`` is out of range.
    """

    def __init__(self, after: float = 0.8):
        if not 0 <= after <= 1:
            raise TutelageError(f"callbacks.freeze.after must be from 0 to 1; found {after}")
        self.after = after

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Does what the start of an epoch does, which a resumed one lacks."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Holds the statistics, or does not yet."""
        net = cast(SupervisedModule, pl_module).student.net.net
        if isinstance(net, Quantised):
            net.freeze(trainer.current_epoch >= self.after * cast(int, trainer.max_epochs))
