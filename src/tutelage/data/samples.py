"""Treats users' map-style datasets as examples with keys, and makes batches of their samples."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from tutelage.data.chance import Chance, Transforms, own_generators, seed_generators
from tutelage.data.examples import Examples
from tutelage.data.fields import INPUT, LABEL, Fields, as_tensor, stacked
from tutelage.data.labels import has_label, no_labels
from tutelage.data.order import Request
from tutelage.data.sample_labels import SampleLabels
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL, Batch


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


@dataclass(frozen=True, eq=False)
class Reading:
    """Makes batches of samples.

    Args:
        fields: what a sample consists of.
        transforms: of each sample.
        collate: list of samples → batch: a dict, or a structure that ``fields`` can read; None stacks.
        mean: mean of the input by channel (its first dimension); None: not normalised.
        std: the same.
        labels: of labels that come with the samples; None: they stand in a table.
    """

    fields: Fields
    transforms: Transforms | None = None
    collate: Callable[[list[Any]], Any] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    labels: SampleLabels | None = None

    def sample(self, samples: Samples, key: int, seed: int) -> Any:
        """Returns one transformed sample, as tensors unless a ``collate`` makes the batch."""
        return self.made(samples.sample(key), samples.place(key)[0], seed)

    def made(self, sample: Any, where: str, seed: int) -> Any:
        """Returns a sample as :meth:`sample` does, from itself."""
        if self.transforms is None and self.collate is not None:
            return sample
        fields, changed = self.fields.pick(sample, where), {}
        if self.transforms is not None:
            changed = self.transforms(fields, seed, where)
        if self.collate is not None:
            return self.fields.put(sample, changed, where)
        made = {**fields, **changed}
        label = made.pop(LABEL, None)
        tensors = {name: as_tensor(name, x, where) for name, x in made.items()}
        if self.labels is not None and label is not None:
            tensors[LABEL] = self.labels.reader(label, where)
        return tensors

    def batch(self, samples: list[Any], where: str, place: Callable[[int], str]) -> dict[str, Tensor]:
        """Returns the fields of a batch; with its labels only where these come with the samples.

        Args:
            samples: as :meth:`sample` returns them.
            where: what errors call the dataset.
            place: position in ``samples`` → what errors call that sample.
        """
        if self.collate is not None:
            made = self._collated(samples, where)
        else:
            labels = [sample.pop(LABEL, None) for sample in samples]
            made = stacked(samples, place)
            if self.labels is not None:
                made[LABEL] = self.labels.stack(labels, place)
        made[INPUT] = self.normalised(made[INPUT])
        return made

    def _collated(self, samples: list[Any], where: str) -> dict[str, Tensor]:
        assert self.collate is not None
        try:
            made = self.collate(samples)
        except Exception as error:  # it is anyone's
            raise TutelageError(f"data.collate of {len(samples)} samples of {where} failed: {error}") from error
        named = isinstance(made, Mapping) and INPUT in made
        parts = dict(made) if named else self.fields.pick(made, f"what data.collate makes of {where}")
        found = {name: as_tensor(name, value, "data.collate") for name, value in parts.items() if name != LABEL}
        if self.labels is not None:
            if LABEL not in parts:
                raise TutelageError(f"data.collate gives no {LABEL!r}; it has {', '.join(map(str, parts))}")
            found[LABEL] = self.labels.reader.column(as_tensor(LABEL, parts[LABEL], "data.collate"), "data.collate")
        elif LABEL in parts:
            self._check_labels(samples, as_tensor(LABEL, parts[LABEL], "data.collate"), where)
        for name, value in found.items():
            if not value.ndim or len(value) != len(samples):
                raise TutelageError(
                    f"data.collate: {name!r} is {list(value.shape)}; its first dimension must be the batch's, "
                    f"{len(samples)}"
                )
        if found[INPUT].dtype == torch.uint8 and found[INPUT].ndim == 4:
            found[INPUT] = found[INPUT].float().div_(255)
        return found

    def _check_labels(self, samples: list[Any], given: Tensor, where: str) -> None:
        """Checks that a collate leaves labels as they are, where they are read from the samples one by one."""
        try:
            own = torch.stack([as_tensor(LABEL, self.fields.label(sample, where), where) for sample in samples])
        except (TutelageError, RuntimeError):  # names of classes, or labels of several lengths
            return
        if given.numel() == own.numel() and not torch.equal(given.flatten().double(), own.flatten().double()):
            raise TutelageError(
                f"data.collate: the labels {given.flatten()[:5].tolist()} … that it gives are not those of its "
                f"samples, in their order, {own.flatten()[:5].tolist()} …; change labels in the dataset, and leave the "
                "order"
            )

    def normalised(self, inputs: Tensor) -> Tensor:
        """Returns (x − mean) / std."""
        if self.mean is None or self.std is None:
            return inputs
        mean, std = self.statistics(inputs)
        return (inputs - mean) / std

    def statistics(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns ``mean`` and ``std``, shaped to broadcast with a batch.

        Raises:
            TutelageError: the input has another number of channels, or is none of floats.
        """
        channels = inputs.shape[1] if inputs.ndim > 1 else 1
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values or ()) != channels or not inputs.is_floating_point():
                raise TutelageError(
                    f"data.{key} has {len(values or ())} numbers for inputs {list(inputs.shape[1:])} of "
                    f"{inputs.dtype}; expected {channels}, one a channel, and floats"
                )
        shape = [-1] + [1] * (inputs.ndim - 2)
        return tuple(torch.tensor(list(x or ()), dtype=torch.float32).view(shape) for x in (self.mean, self.std))


@dataclass(frozen=True, eq=False)
class SampleSet(Dataset[Batch]):
    """A subset of the examples, fetched one by one and collated to batches.

    Random numbers of a dataset or a transform, from Python's, NumPy's or torch's global generators, are a
    function of (seed, view, key): the same for any number of workers and ranks, and after resuming.

    Args:
        examples: all of them, their pixels being :class:`Samples`.
        keys: [n] int64, which of them belong to this set; one may come more than once.
        reading: how batches are made.
        chance: chooses the view of an example in an epoch; None: a fixed one.
        shows_views: whether batches have the field ``view``.
        times: how often the examples are repeated in ``keys``.
    """

    examples: Examples
    keys: Tensor
    reading: Reading
    chance: Chance | None = None
    shows_views: bool = False
    times: int = 1
    in_memory: ClassVar[bool] = False
    _lengths: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def labels(self) -> Tensor:
        """Returns the labels [n, …] by index in this set; zeros or −100 where labels come with the samples."""
        return self.examples.labels.index_select(0, self.keys)

    @property
    def samples(self) -> Samples:
        """Returns the samples of the examples."""
        found = self.examples.pixels
        assert isinstance(found, Samples)
        return found

    def __getitem__(self, request: Request) -> Batch:
        """Returns ``{"input": [B, …], …, "label": [B, …], "key": [B]}`` for (epoch, indices into this set)."""
        epoch, indices = request
        keys = self.keys.index_select(0, indices)
        views, seed = torch.zeros_like(keys), 0
        if self.chance is not None:
            turns, seed = (indices // (len(self.keys) // self.times)).tolist(), self.chance.seed
            views = torch.tensor([self.chance.view(epoch, turn) for turn in turns], dtype=torch.long)
        with own_generators():
            samples = list(self._each(seed, views.tolist(), keys.tolist()))
            fields = self.reading.batch(samples, self.samples.parts[0][0], lambda row: self.name_of(int(keys[row])))
        fields[LABEL] = self._labels(fields.get(LABEL), keys)
        shown = {"view": views} if self.shows_views else {}
        return {**fields, "key": keys, **shown}

    def _labels(self, given: Tensor | None, keys: Tensor) -> Tensor:
        """The labels of a batch: the table's; or those ``given`` by the samples, but for rows without one there."""
        table = self.examples.labels.index_select(0, keys)
        if given is None or self.reading.labels is None:
            return table
        bare = ~has_label(table)
        found = given if not bare.any() else given.clone()
        found[bare] = no_labels(int(bare.sum()), found)
        self.reading.labels.check(found, lambda row: self.name_of(int(keys[row])))
        return found

    def name_of(self, key: int) -> str:
        """Returns the name of an example for messages."""
        return self.samples.place(key)[0]

    def _each(self, seed: int, views: list[int], keys: list[int]) -> Iterator[Any]:
        for view, key in zip(views, keys, strict=True):
            yield self.reading.sample(self.samples, key, seed_generators(seed, "sample", view, key))

    def repeated(self, times: int) -> "SampleSet":
        """Returns a set with every example ``times`` times, each time in another view."""
        chance = None if self.chance is None else replace(self.chance, times=times)
        return replace(self, keys=self.keys.repeat(times), times=times, chance=chance)

    def lengths(self, name: str) -> Tensor:
        """Returns the first dimension of a field of every example, by key; reads each once."""
        if name not in self._lengths:
            found, fields = [], self.reading.fields
            for key in range(len(self.examples)):
                where = self.samples.place(key)[0]
                sample = fields.pick(self.samples.sample(key), where)
                if name not in sample or not hasattr(sample[name], "__len__"):
                    raise TutelageError(f"data.sampler.field: {where} has no field {name!r} with a length")
                found.append(len(sample[name]))
            self._lengths[name] = torch.tensor(found)
        return self._lengths[name]
