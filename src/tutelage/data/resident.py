"""Keeps whole data sets on the training device, so that no step copies images from the host."""

from collections.abc import Callable
from typing import Protocol, Self, runtime_checkable

import lightning as L
import torch
from torch import Tensor

from tutelage.runtime.devices import free_memory

_ATTRIBUTE = "_residence"  # of a data module
SHARE = 0.25  # of the device's free memory; the rest is for networks, optimizer and activations


@runtime_checkable
class Movable(Protocol):
    """A dataset that consists of tensors and can be copied to another device."""

    in_memory: bool  # all of it consists of tensors; nothing is read from files
    batch_dim: int  # which dimension of its batches counts the examples

    def moved(self, to: Callable[[Tensor], Tensor]) -> Self:
        """Returns the same dataset with ``to`` applied to each of its tensors."""


class Residence:
    """Copies of datasets on ``device``.

    A dataset is copied as a whole or not at all: all copies together take at most a quarter of the memory that was free
    at the first copy. Images keep the host's dtype: uint8 if they are
    augmented, else normalised float32. A tensor that several datasets share is copied once.

    Args:
        device: device of the training.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._left: float | None = None
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}  # id → original, which keeps the id its own, and copy

    def take(self, dataset: object) -> Movable | None:
        """Returns the dataset on the device; None if it is read from files or does not fit."""
        if not isinstance(dataset, Movable) or not dataset.in_memory:
            return None
        new: dict[int, Tensor] = {}
        dataset.moved(lambda x: x if id(x) in self._copies else new.setdefault(id(x), x))
        if self._left is None:
            self._left = SHARE * free_memory(self.device)
        if (size := sum(x.nbytes for x in new.values())) > self._left:
            return None
        self._left -= size
        return dataset.moved(self._copy)

    def _copy(self, x: Tensor) -> Tensor:
        if id(x) not in self._copies:
            self._copies[id(x)] = x, x.to(self.device)
        return self._copies[id(x)][1]


def residence_of(data: L.LightningDataModule) -> Residence | None:
    """Returns the residence of all loaders of ``data`` on its trainer's device; None without a trainer or on a CPU."""
    if data.trainer is None or data.trainer.strategy.root_device.type == "cpu":
        return None
    kept: Residence | None = data.__dict__.get(_ATTRIBUTE)
    if kept is None or kept.device != data.trainer.strategy.root_device:
        kept = data.__dict__[_ATTRIBUTE] = Residence(data.trainer.strategy.root_device)
    return kept


def leave(data: L.LightningDataModule) -> None:
    """Frees the memory of ``data`` on a device, once no loader is in use."""
    data.__dict__.pop(_ATTRIBUTE, None)
