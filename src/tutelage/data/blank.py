"""A training set without examples, for students whose images are made while they learn."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tutelage.data.order import Request
from tutelage.types import NO_LABEL, Batch


@dataclass(frozen=True, eq=False)
class BlankSet(Dataset[Batch]):
    """Batches that say how many images a step needs, and of which shape: zeros without a label.

    Args:
        keys: [n] int64, places that are no example's.
        shape: of an image.
    """

    keys: Tensor
    shape: tuple[int, ...]
    in_memory: bool = False  # nothing of it is worth a copy on a device

    @property
    def labels(self) -> Tensor:
        """Returns [n] times ``NO_LABEL``."""
        return torch.full((len(self.keys),), NO_LABEL)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, request: Request) -> Batch:
        _, rows = request
        images = torch.zeros(()).expand(len(rows), *self.shape)
        return {"input": images, "label": torch.full((len(rows),), NO_LABEL), "key": self.keys[rows]}
