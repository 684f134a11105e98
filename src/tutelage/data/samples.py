"""Treats users' map-style datasets as examples with keys."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from tutelage.data.chance import own_generators, seed_generators
from tutelage.data.examples import Examples
from tutelage.data.fields import Fields, as_tensor
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL


class DrawnPart(Subset[Any]):
    """A part of a dataset that was drawn here, such as a test set; errors name a sample by its row in that dataset.

    Args:
        name: of the dataset, for messages.
        dataset: has ``len`` and ``[row]``.
        rows: of the dataset.
    """

    def __init__(self, name: str, dataset: Any, rows: list[int]):
        super().__init__(dataset, rows)
        self.name = name


class Samples:
    """The samples of one or several datasets, with consecutive keys.

    Args:
        parts: name for messages → dataset, with ``len`` and ``[row]``.
        fields: what a sample consists of.
        looked_at: number of samples, evenly spread, that :meth:`content` digests; None for all.
    """

    def __init__(self, parts: Sequence[tuple[str, Any]], fields: Fields, looked_at: int | None):
        self.parts, self.fields, self.looked_at = tuple(parts), fields, looked_at
        self.counts = [len(dataset) for _, dataset in self.parts]

    def __len__(self) -> int:
        return sum(self.counts)

    def __getitem__(self, rows: Tensor) -> Tensor:
        raise TutelageError("samples of a dataset are fetched by SampleSet")

    def place(self, key: int) -> tuple[str, Any, int]:
        """Returns an example's name for messages, its dataset and its row there."""
        row = key
        for (name, dataset), count in zip(self.parts, self.counts, strict=True):
            if row < count:
                if isinstance(dataset, DrawnPart):
                    name, row, dataset = dataset.name, dataset.indices[row], dataset.dataset
                return f"{name}: sample {row}", dataset, row
            row -= count
        raise IndexError(key)

    def sample(self, key: int) -> Any:
        """Returns one sample unchanged.

        Raises:
            TutelageError: the dataset fails.
        """
        where, dataset, row = self.place(key)
        try:
            return dataset[row]
        except TutelageError:
            raise
        except Exception as error:  # it is anyone's
            raise TutelageError(f"{where} can't be read: {type(error).__name__}: {error}") from error

    def spread(self, most: int | None) -> list[int]:
        """Returns up to ``most`` keys of each dataset, evenly spread, including the first and the last."""
        keys, start = [], 0
        for count in self.counts:
            some = count if most is None else min(most, count)
            keys += [start + i * (count - 1) // max(1, some - 1) for i in range(some)]
            start += count
        return keys

    def bytes_of(self, key: int) -> bytes:
        """Returns a digest of a sample's fields, read with a fixed random seed."""
        with own_generators():
            seed_generators(0, "sample", 0, key)
            fields = self.fields.pick(self.sample(key), where := self.place(key)[0])
        made = hashlib.sha256()
        for name, value in fields.items():
            tensor = as_tensor(name, value, where)
            made.update(repr((name, tensor.dtype, tensor.shape)).encode())
            made.update(tensor.contiguous().numpy().tobytes())
        return made.digest()

    def content(self) -> bytes:
        """Returns the numbers of samples, and digests of the checked ones if reading them is reproducible."""
        return self._content

    @cached_property
    def _content(self) -> bytes:
        keys = self.spread(self.looked_at)
        if any(self.bytes_of(key) != self.bytes_of(key) for key in keys[:4]):  # it draws, and nobody can say what
            return repr(self.counts).encode()
        return repr(self.counts).encode() + b"".join(map(self.bytes_of, keys))

    def joined(self, others: Sequence["Samples"]) -> "Samples":
        """Returns these samples followed by others."""
        return Samples([part for one in (self, *others) for part in one.parts], self.fields, self.looked_at)


@dataclass(frozen=True, eq=False)
class Bare:
    """A dataset whose labels are not read: additional unlabelled examples.

    Args:
        dataset: has samples with the fields of the training set, or only inputs.
        fields: what a sample consists of.
        looked_at: see :class:`Samples`.
    """

    dataset: Any
    fields: Fields
    looked_at: int | None

    def load(self, shape: tuple[int, ...]) -> Examples:
        """Returns all samples as unlabelled examples."""
        samples = Samples([("data.unlabelled", self.dataset)], self.fields, self.looked_at)
        return Examples(samples, torch.full((len(samples),), NO_LABEL))
