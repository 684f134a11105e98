"""A set of a user's samples that is fetched batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from tutelage.data.chance import Chance, own_generators, seed_generators
from tutelage.data.examples import ExampleSet
from tutelage.data.fields import LABEL
from tutelage.data.labels import has_label, no_labels
from tutelage.data.order import Request
from tutelage.data.reading import Reading
from tutelage.data.samples import Samples
from tutelage.errors import TutelageError
from tutelage.types import Batch


@dataclass(frozen=True, eq=False)
class SampleSet(ExampleSet):
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

    reading: Reading
    chance: Chance | None = None
    shows_views: bool = False
    times: int = 1
    in_memory: ClassVar[bool] = False
    _lengths: dict[str, Tensor] = field(default_factory=dict)

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
