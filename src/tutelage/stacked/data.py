"""Batches for many jobs at once, with each job's own order and augmentation."""

from collections.abc import Callable, Sequence
from functools import partial

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tutelage import seeding
from tutelage.data.examples import ImageSet
from tutelage.data.module import Data
from tutelage.data.order import EpochLoader, EpochOrder, Request, position
from tutelage.data.resident import leave, residence_of
from tutelage.types import Batch


class _Orders(EpochOrder):
    """The orders of S seeds side by side: an index is [B, S]."""

    def __init__(self, seeds: Sequence[int], size: int, batch_size: int, drop_last: bool):
        super().__init__(size, batch_size, seeds[0], shuffle=True, drop_last=drop_last)
        self.seeds = list(seeds)

    def _permutation(self, epoch: int) -> Tensor:
        orders = (torch.randperm(self.size, generator=seeding.generator(s, "order", epoch)) for s in self.seeds)
        return torch.stack(list(orders), dim=1)


class _Sets(Dataset[Batch]):
    """The training images with each seed's augmentation: batches are [S, B, …].

    Args:
        by_seed: the images for each seed, or once for all.
    """

    batch_dim = 1

    def __init__(self, by_seed: Sequence[ImageSet]):
        self.by_seed = by_seed

    @property
    def in_memory(self) -> bool:
        return self.by_seed[0].in_memory

    def moved(self, to: Callable[[Tensor], Tensor]) -> "_Sets":
        return _Sets([one.moved(to) for one in self.by_seed])

    def __len__(self) -> int:
        return len(self.by_seed[0])

    def __getitem__(self, request: Request) -> Batch:
        epoch, indices = request
        shape = indices.T.shape
        if len(self.by_seed) == 1:
            batch = self.by_seed[0][epoch, indices.T.flatten()]
            return {name: tensor.unflatten(0, shape) for name, tensor in batch.items()}
        batches = [own[epoch, column] for own, column in zip(self.by_seed, indices.unbind(1), strict=True)]
        return {name: torch.stack([batch[name] for batch in batches]) for name in batches[0]}


class StackedData(L.LightningDataModule):
    """Training batches of all ``seeds`` together, and the shared validation batches.

    Args:
        data: loaded data; its own seed is not used.
        seeds: seeds of the orders and augmentations.
    """

    def __init__(self, data: Data, seeds: Sequence[int]):
        super().__init__()
        self.data, self.seeds = data, list(seeds)

    def train_dataloader(self) -> EpochLoader:
        """Returns a loader of batches {"input": [S, B, C, H, W], "label": [S, B], "key": [S, B]}."""
        own = (self.data.with_seed(seed) for seed in (self.seeds if self.data.augment else self.seeds[:1]))
        sets = _Sets([one.transfer.epoch(one.splits["train"], one.split_seed) for one in own])
        order = _Orders(self.seeds, len(sets), self.data.batch_size, self.data.drop_last)
        where = partial(position, self.trainer)  # type: ignore[arg-type]
        return EpochLoader(sets, order, self.data.num_workers, where, residence_of(self))

    def val_dataloader(self) -> EpochLoader:
        """Returns the validation loader of a single job."""
        self.data.trainer = self.trainer
        return self.data.val_dataloader()

    def teardown(self, stage: str) -> None:
        """Frees the data's memory on the device."""
        leave(self)
        leave(self.data)
