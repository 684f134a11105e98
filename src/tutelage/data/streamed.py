"""Training sets that are read as a stream and never held in memory as a whole."""

import logging
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from tutelage.data.datamodule import loaders_of
from tutelage.data.dataset import DatasetData
from tutelage.data.examples import Examples
from tutelage.data.found_labels import FoundLabels
from tutelage.data.parts import Part, as_part
from tutelage.data.sample_labels import SampleLabels
from tutelage.data.sample_set import SampleSet
from tutelage.data.samples import Samples
from tutelage.data.streams import Cursor, Head, StreamedSet, Taken
from tutelage.errors import TutelageError
from tutelage.types import Batch

log = logging.getLogger(__name__)

_COMPARED = 4  # number of samples by which two passes are compared
_PLAIN = {  # options that need all labels, or any example at once, and what they are unless they are set
    "labelled": None, "classes": None, "unlabelled": None, "repeat_labelled": 1, "focus": None, "long_tail": None,
    "sampler": None, "repeat": 1, "made": None,
}  # fmt: skip


class _InOrder:
    """Takes the examples as the stream gives them."""

    def size(self, train: Any) -> int:
        """Returns the number of examples of an epoch."""
        return len(train)

    def __call__(self, train: Any, batch_size: int, chance: torch.Generator) -> Tensor:
        """Returns ascending indices."""
        return torch.arange(len(train))


class StreamedData(DatasetData):
    """A stream to train on, of any size, with map-style sets for validation and test.

    The passes over the stream follow one another, and each epoch takes the next ``examples`` of them; a buffer shuffles
    each pass as a function of (seed, pass). Every process reads the whole stream, workers and ranks too, and makes
    batches of its own share alone: the same examples are in the same batches for any number of them, and a resumed run
    reads again, without training, what it had read. Keys are the places in a pass, behind those of validation.

    Args:
        train: an ``IterableDataset``, an iterable that can be begun again, a function that makes one, or a loader.
        val: the validation set, as for :class:`~tutelage.data.dataset.DatasetData`; a stream is read into memory.
        test: the test set, likewise.
        datamodule: a LightningDataModule whose loaders give all three instead.
        length: number of samples of a pass; null: the stream's ``len()`` if it has one.
        examples: number of examples of an epoch; null: one pass.
        buffer: number of samples that the buffer holds; 1: the stream's own order.
        fields: as for :class:`~tutelage.data.dataset.DatasetData`; ``key`` may be a whole number of the sample.
        check: number of samples of each set that are checked before training; the first ones of the stream.
        seed: seed of the order and all random numbers.
        split_seed: seeds what a LightningDataModule draws.
        **common: further arguments of :class:`~tutelage.data.dataset.DatasetData`.

    Raises:
        TutelageError: validation or test is missing, nothing says how long an epoch is, or an option needs to know all
            examples in advance.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("datamodule", "length", *DatasetData.seen_through)
    listed = False

    def __init__(
        self,
        *,
        seed: int,
        train: Any = None,
        val: Any = None,
        test: Any = None,
        datamodule: Any = None,
        length: int | None = None,
        examples: int | None = None,
        buffer: int = 1000,
        fields: Mapping[str, Hashable] | None = None,
        check: int | None = 256,
        split_seed: int = 0,
        **common: Any,
    ):
        name = ""
        if datamodule is not None:
            name, loaders = loaders_of(datamodule, split_seed)
            train, val, test = loaders["train"], loaders["val"], loaders["test"]
        self._refuse(common, {"train": train, "val": val, "test": test}, check)
        for key, value in (("length", length), ("examples", examples), ("buffer", buffer)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise TutelageError(f"data.{key} must be a whole number of at least 1; found {value!r}")
        places = None if fields is None else {str(field): place for field, place in fields.items()}
        self.key_place = None if places is None else places.pop("key", None)
        self.buffer = buffer
        super().__init__(
            train=train, val=val, test=test, fields=places, check=check, seed=seed, split_seed=split_seed, **common
        )
        self.sampler = _InOrder()
        self.stream = self.parts["train"].dataset.dataset
        self.vocab_size = self.vocab_size or getattr(self.stream, "vocab_size", None)
        self.name = name or type(self.stream).__name__
        self.length = length or _length(self.stream)
        self.examples = self._epoch_size(examples)

    @property
    def shared(self) -> dict[str, Any]:
        """Returns arguments that give another object the same sets, already made, with their labels."""
        return {**super().shared, "datamodule": None}

    @property
    def absent(self) -> list[int]:
        """Returns no class: nobody knows before the stream is read."""
        return []

    def part(self, key: str, given: Any, replaced: bool) -> Part:
        """Returns a set; of the training set its first samples, which stand for it before training."""
        if key != "train" or isinstance(given, Part):
            return super().part(key, given, replaced)
        part = as_part("data.train", given, replaced, streamed=True)
        cursor, head = Cursor(part.name, part.dataset, 0, 1, None), []
        for place in range(self.check or 0):
            [one] = cursor.take([place])
            if one.number:
                break
            head.append(one.sample)
        return replace(part, dataset=Head(part.dataset, head))

    def found(self, key: str, part: Part) -> FoundLabels:
        """Returns the labels of a set; of the training set those of the first samples, without a largest class."""
        found = super().found(key, part)
        return replace(found, largest=None) if key == "train" else found

    def for_training(self, plain: SampleSet, examples: Examples) -> StreamedSet:
        """Returns the stream in its own order, with keys if they are known."""
        labels = self.train_reading.labels or SampleLabels(
            self.label_reader, self.num_classes, tuple(examples.labels.shape[1:])
        )
        first = len(examples)
        known = self.examples == self.length and self.key_place is None and self._is_stable
        return StreamedSet(
            examples=examples,
            keys=torch.arange(first, first + self.examples) if known else torch.zeros(0, dtype=torch.long),
            reading=replace(self.train_reading, labels=labels),
            chance=replace(self.chance, seed=self.seed),
            shows_views=self.augment is not None,
            cursor=Cursor("data.train", self.stream, self.seed, 1, self.length),
            count=self.examples,
            first_key=first,
            key_place=self.key_place,
        )  # fmt: skip

    def per_epoch(self, train: SampleSet) -> SampleSet:
        """Returns the stream for one reader, shuffled by the buffer."""
        if isinstance(train, StreamedSet):
            return train.opened(self.buffer)
        return replace(train, keys=train.keys[:1].expand(self.examples))  # its size is all that is asked for

    def sample(self, n: int) -> Batch:
        """Returns the first samples of the stream, with the keys that they have in it."""
        batch, train, head = super().sample(n), self.splits["train"], self.parts["train"].dataset
        keys = [train.key_of(Taken(0, row, head[row])) for row in batch["key"].tolist()]
        return {**batch, "key": torch.tensor(keys)}

    # -- checks -------------------------------------------------------------------------------------------------------

    def _refuse(self, common: dict[str, Any], parts: dict[str, Any], check: int | None) -> None:
        for key, plain in _PLAIN.items():
            if common.get(key, plain) not in (plain, []):
                raise TutelageError(
                    f"data.{key} needs all training examples before the first is read; a stream gives one after the "
                    "other (data=dataset takes a map-style Dataset)"
                )
        if parts["train"] is None:
            raise TutelageError("data.train=… or data.datamodule=… is needed: the stream to train on")
        for key in ("val", "test"):
            if parts[key] is None:
                raise TutelageError(
                    f"data.{key} is needed: it can't be drawn from a stream (data.{key}={{_target_: …}}, a map-style "
                    "Dataset, or a stream that fits into memory)"
                )
        if check is None:
            raise TutelageError("data.check=null would read the whole stream into memory; give a number of samples")

    def _epoch_size(self, examples: int | None) -> int:
        if examples is None and self.length is None:
            raise TutelageError(
                f"data.examples is needed, the number of examples of an epoch, as {self.name} has no len(); or "
                "data.length, the number of samples from its beginning to its end"
            )
        return examples or self.length or 0

    def look_for_chance(self, pool: Samples) -> None:
        """Compares the first samples of two passes, and of the first pass with themselves."""
        super().look_for_chance(pool)
        part, count = self.parts["train"], min(_COMPARED, len(self.parts["train"].dataset))
        one, other = (Cursor(part.name, self.stream, 0, 1, self.length) for _ in range(2))
        first, again = (self._digests(cursor, range(count)) for cursor in (one, other))
        later = first
        if self.length is not None:
            later = self._digests(other, range(self.length, self.length + count))
        self._is_stable = self.length is not None and first == later
        if first != again:
            log.warning(
                "data.train: %s gives other samples each time it is read, by chance of its own: a run can't be resumed "
                "to the bit, nor are student and control trained on the same (let it draw from the global generators)",
                self.name,
            )

    def _digests(self, cursor: Cursor, positions: Iterable[int]) -> list[bytes]:
        found = Samples([("data.train", [one.sample for one in cursor.take(list(positions))])], self.fields, None)
        return [found.bytes_of(key) for key in range(len(found))]


def _length(stream: Any) -> int | None:
    try:
        return len(stream)
    except (TypeError, NotImplementedError):
        return None
