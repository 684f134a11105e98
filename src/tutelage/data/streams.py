"""Streams: samples that can only be read from the beginning on, passed over again and again, shuffled by a buffer."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any

import torch
from torch.utils.data import Dataset

from tutelage import seeding
from tutelage.compat.torch import without_worker
from tutelage.data.chance import global_states, own_generators, seed_generators, set_global_states
from tutelage.data.fields import LABEL, entries
from tutelage.data.labels import has_label
from tutelage.data.order import Request
from tutelage.data.sample_set import SampleSet
from tutelage.errors import TutelageError
from tutelage.types import Batch

_DRAWN = 4096  # places of a buffer that are drawn at once


@dataclass(frozen=True)
class Taken:
    """A sample of a stream: of which pass, in which place of this pass as the stream gives it, and itself."""

    number: int
    place: int
    sample: Any


class Cursor:
    """Reads a stream by position in the endless sequence of its passes, in ascending order.

    A pass is everything that the stream gives from its beginning to its end. Its order is a function of (seed, pass):
    a buffer shuffles it, and what the stream itself draws from the global generators of Python, NumPy and torch is
    seeded. A position before the last one is reached by reading from the beginning again. No more than
    the buffer and what was asked for is kept.

    Args:
        name: of the stream, for messages.
        stream: can be iterated more than once; its ``set_epoch``, if it has one, is called with the number of the pass.
        seed: of all random numbers.
        buffer: number of samples that are shuffled; 1: none are.
        length: number of samples of a pass, if it is known.
    """

    def __init__(self, name: str, stream: Iterable[Any], seed: int, buffer: int, length: int | None):
        self.name, self.stream, self.seed, self.buffer, self.length = name, stream, seed, buffer, length
        self._samples: Iterator[Taken] | None = None
        self._states: tuple[Any, Any, torch.Tensor] | None = None
        self._next = 0

    def take(self, positions: Sequence[int]) -> list[Taken]:
        """Returns the samples at ascending positions.

        Raises:
            TutelageError: the stream fails, is empty, or has another length than before.
        """
        with own_generators(), without_worker():
            if self._states is not None:
                set_global_states(self._states)
            try:
                return [self._at(position) for position in positions]
            finally:
                self._states = global_states()

    def __getstate__(self) -> dict[str, Any]:
        """Returns all but the reading in progress, which a worker process begins itself."""
        return {**self.__dict__, "_samples": None, "_next": 0, "_states": None}

    def _at(self, position: int) -> Taken:
        if self._samples is None or position < self._next:
            number = position // self.length if self.length else 0
            self._next, self._samples = number * (self.length or 0), self._passes(number)
        while self._next < position:
            next(self._samples)
            self._next += 1
        self._next += 1
        return next(self._samples)

    def _passes(self, number: int) -> Iterator[Taken]:
        while True:
            seed_generators(self.seed, "stream", number)
            yield from shuffled(self._pass(number), self.buffer, seeding.generator(self.seed, "buffer", number))
            number += 1

    def _pass(self, number: int) -> Iterator[Taken]:
        if callable(set_epoch := getattr(self.stream, "set_epoch", None)):
            set_epoch(number)
        count = 0
        for sample in self._each():
            yield Taken(number, count, sample)
            count += 1
        if not count:
            raise TutelageError(f"{self.name}: {type(self.stream).__name__} gives no sample when it is read again")
        if self.length not in (None, count):
            raise TutelageError(
                f"{self.name}: pass {number} over {type(self.stream).__name__} has {count} samples; expected "
                f"{self.length}, as its len() or data.length says, or an earlier pass had"
            )
        self.length = count

    def _each(self) -> Iterator[Any]:
        try:
            yield from self.stream
        except TutelageError:
            raise
        except Exception as error:  # it is anyone's
            raise TutelageError(f"{self.name} can't be read on: {type(error).__name__}: {error}") from error


def shuffled(samples: Iterable[Taken], buffer: int, chance: torch.Generator) -> Iterator[Taken]:
    """Yields all samples; each place of a buffer that is drawn gives its sample and takes the next."""
    if buffer == 1:
        yield from samples
        return
    held: list[Taken] = []
    drawn: list[int] = []
    for one in samples:
        if len(held) < buffer:
            held.append(one)
            continue
        drawn = drawn or torch.randint(buffer, (_DRAWN,), generator=chance).tolist()
        place = drawn.pop()
        chosen, held[place] = held[place], one
        yield chosen
    held = [held[place] for place in torch.randperm(len(held), generator=chance).tolist()]
    while held:
        yield held.pop()


class Head(Dataset[Any]):
    """The first samples of a stream, in memory, which stand for all in what is looked at before training.

    Args:
        stream: the whole.
        samples: the first ones.
    """

    def __init__(self, stream: Iterable[Any], samples: list[Any]):
        self.dataset, self.samples = stream, samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> Any:
        return self.samples[row]


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedSet(SampleSet):
    """A stream as a training set: epoch e has the positions e · ``count`` to (e + 1) · ``count`` − 1 of its passes.

    Batches are read in ascending order. Their keys are the samples' places in a pass, from ``first_key`` on, or stand
    in the samples. ``keys`` is empty where they are not known in advance.

    Args:
        cursor: of the stream.
        count: number of examples of an epoch.
        first_key: key of a pass's first sample.
        key_place: key, attribute or position in a sample of an integer that is its key.
    """

    cursor: Cursor
    count: int
    first_key: int
    key_place: Hashable = None

    def __len__(self) -> int:
        return self.count

    @property
    def labels(self) -> torch.Tensor:
        """Returns the labels of the stream's first samples; those of all are not known in advance."""
        return self.examples.labels[: len(self.samples.parts[0][1])]

    def opened(self, buffer: int) -> "StreamedSet":
        """Returns the set for one reader, shuffled by a buffer."""
        own = self.cursor
        return replace(self, cursor=Cursor(own.name, own.stream, own.seed, buffer, own.length))

    def __getitem__(self, request: Request) -> Batch:
        """Returns ``{"input": [B, …], …, "label": [B, …], "key": [B]}`` for (epoch, ascending indices)."""
        epoch, indices = request
        taken = self.cursor.take([epoch * self.count + row for row in indices.tolist()])
        keys = [self.key_of(one) for one in taken]
        chance = self.chance
        views = [0 if chance is None else chance.view(one.number) for one in taken]
        with own_generators():
            samples = [
                self.reading.made(
                    one.sample, self._name(one), seed_generators(chance.seed if chance else 0, "sample", view, key)
                )
                for one, key, view in zip(taken, keys, views, strict=True)
            ]
            batch = self.reading.batch(samples, self.cursor.name, lambda row: self._name(taken[row]))
        self._check(batch[LABEL], taken)
        shown = {"view": torch.tensor(views)} if self.shows_views else {}
        return {**batch, "key": torch.tensor(keys), **shown}

    def key_of(self, one: Taken) -> int:
        """Returns the key of a sample.

        Raises:
            TutelageError: its own is no whole number from 0 on.
        """
        if self.key_place is None:
            return self.first_key + one.place
        found = entries(one.sample).get(self.key_place)
        try:
            key = -1 if isinstance(found, bool) else index(found)  # type: ignore[arg-type]
        except TypeError:
            key = -1
        if key < 0:
            raise TutelageError(
                f"{self._name(one)}: data.fields.key={self.key_place} is to be a whole number from 0 on; found "
                f"{found!r:.40}"
            )
        return key

    def _name(self, one: Taken) -> str:
        return f"{self.cursor.name}: sample {one.place}"

    def _check(self, labels: torch.Tensor, taken: list[Taken]) -> None:
        assert self.reading.labels is not None
        self.reading.labels.check(labels, lambda row: self._name(taken[row]))
        bare = ~has_label(labels)
        if bare.any() and bool(has_label(self.labels).all()):
            where = self._name(taken[int(bare.nonzero()[0])])
            raise TutelageError(f"{where} has no label; the first {len(self.labels)} samples have, so all must")
