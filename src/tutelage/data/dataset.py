"""A user's data: any map-style Dataset for training, validation and test."""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from tutelage.data.chance import Chance, Transform, Transforms
from tutelage.data.examples import Examples, divide
from tutelage.data.fields import INPUT, LABEL, Fields
from tutelage.data.found_labels import FoundLabels, class_names_of, input_names_of, labels_of, widths
from tutelage.data.labels import checked_labels, has_label, is_class, of_pixels
from tutelage.data.module import Data
from tutelage.data.parts import Part, as_part
from tutelage.data.reading import Reading
from tutelage.data.sample_labels import LabelReader, SampleLabels
from tutelage.data.sample_set import SampleSet
from tutelage.data.samplers import Repeated, Weighted
from tutelage.data.samples import Bare, DrawnPart, Samples
from tutelage.errors import TutelageError

log = logging.getLogger(__name__)

_AT_ONCE = 16  # number of samples that are read together to find a label
_COPIES = 4  # number of samples that are read twice, to detect datasets that draw random numbers


class DatasetData(Data):
    """Any map-style Datasets, functions that return them, or DataLoaders (their dataset and ``collate_fn`` are used).

    Samples are tuples, dicts or dataclasses. Order and random numbers are ours: the order of an epoch is a function of
    (seed, epoch), and random numbers in a dataset or a transform are a function of (seed, view, key). So
    keys, splits, transfer sets, caches, ranks and exact resumption work as for the built-in data sets.

    Args:
        train: the training set.
        val: the validation set; null: drawn from the training set (``val_size``, ``split_seed``).
        test: the test set; null: drawn from the training set first (``test_size``).
        test_size: number (below 1: fraction) of test samples if there is no ``test``.
        num_classes: labels are 0 to num_classes − 1; null: from the dataset, or the largest label + 1;
            none for float labels.
        class_names: by default the dataset's ``classes`` or features.
        num_outputs: see :class:`~tutelage.data.module.Data`; null: ``num_classes``, or the number of floats of a label.
        label_dtype: ``int`` or ``float``, to convert labels: integers that are numbers to predict, or many answers of
            0 and 1.
        ignore_index: value of pixels or tokens without a label, besides −100.
        input_shape: shape of one example's ``input``; null: that of the first.
        vocab_size: number of token ids; null: the training set's ``vocab_size``, if it has one.
        fields: field of the batch → key, attribute or position in a sample (:class:`~tutelage.data.fields.Fields`).
        transform: one or several, applied to every sample's input before it is a tensor (:mod:`tutelage.data.chance`).
        train_transform: replaces ``transform`` for training samples; it may draw random numbers.
        transform_fields: arguments of a transform, if not just the input; needed where labels are of pixels.
        collate: list of samples → batch; null: samples are stacked.
        mean: mean of the input by channel, subtracted after transforms; null: not normalised.
        std: the same.
        views: number of views of an example; epoch e uses number e mod views. Null: no limit.
        repeat: how often each example occurs in an epoch, each time in another view.
        check: number of samples of each set that are checked before training and form its fingerprint with the labels;
            null for all.
        seed: seed of the order and all random numbers.
        val_size: see :class:`~tutelage.data.module.Data`.
        unlabelled: additional datasets of unlabelled samples.
        **common: arguments of :class:`~tutelage.data.module.Data`.

    Raises:
        TutelageError: a set is empty, a field is missing or a label is invalid; names the sample. Or labels are of
            pixels, and ``transform_fields`` does not say whether a transform moves them.
    """

    seen_through: ClassVar[tuple[str, ...]] = (
        "train", "val", "test", "fields", "transform", "transform_fields", "train_transform", "collate", "mean", "std",
    )  # fmt: skip

    def __init__(
        self,
        *,
        train: Any,
        seed: int,
        val: Any = None,
        test: Any = None,
        test_size: float = 0.1,
        val_size: float = 0.1,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        num_outputs: int | None = None,
        label_dtype: str | None = None,
        ignore_index: int | None = None,
        input_shape: Sequence[int] | None = None,
        vocab_size: int | None = None,
        fields: Mapping[str, Hashable] | None = None,
        transform: Transform | Sequence[Transform] | None = None,
        train_transform: Transform | Sequence[Transform] | None = None,
        transform_fields: Sequence[str] | Mapping[str, str] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        views: int | None = None,
        repeat: int = 1,
        check: int | None = 256,
        unlabelled: Iterable[Any] | None = None,
        **common: Any,
    ):
        self.fields, self.check = Fields(fields), check
        given = {"train": train, "val": val, "test": test}
        replaced = common.get("sampler") is not None
        self.parts = {key: self.part(key, one, replaced) for key, one in given.items() if one is not None}
        self.label_reader = reader = LabelReader(label_dtype, ignore_index)
        found = {key: part.labels or self.found(key, part) for key, part in self.parts.items()}
        self.parts = {key: replace(part, labels=found[key]) for key, part in self.parts.items()}
        self._labels = {key: one.table for key, one in found.items()}
        names = class_names_of(self.parts["train"].dataset, self.fields) if class_names is None else class_names
        num_classes, num_outputs = widths(found, num_classes, num_outputs, names)
        if class_names is None and names and len(names) != num_outputs:
            names = None  # a dataset's ``classes`` need not be those of this label
        bare = [Bare(as_part("data.unlabelled", one).dataset, self.fields, check) for one in unlabelled or ()]
        super().__init__(
            num_classes=num_classes, num_outputs=num_outputs, class_names=names, seed=seed, val_size=val_size,
            unlabelled=bare, **common,
        )  # fmt: skip
        self.name = type(self.parts["train"].dataset).__name__
        self.input_names = input_names_of(self.parts["train"].dataset)
        self.vocab_size = vocab_size or getattr(self.parts["train"].dataset, "vocab_size", None)
        self.test_size, self.repeat, self._given_shape = test_size, repeat, input_shape
        self._check_options(views, mean, std)
        plain = None if transform is None else Transforms(transform, transform_fields, "data.transform")
        changed = plain
        if train_transform is not None:
            changed = Transforms(train_transform, transform_fields, "data.train_transform")
        labels = self._labels["train"]
        if of_pixels(labels) and changed is not None and transform_fields is None:
            raise TutelageError(
                f"{changed.key} changes inputs alone, and labels are one for each pixel: with "
                "data.transform_fields=[input, label] it is called with both, with [input] it moves no pixel"
            )
        moved = [*(transform_fields.values() if isinstance(transform_fields, Mapping) else transform_fields or ())]
        own = not is_class(labels) and (not labels.is_floating_point() or LABEL in moved)
        brought = SampleLabels(reader, num_classes) if own else None
        self._reading = Reading(self.fields, plain, collate or self.parts["train"].collate, mean, std, brought)
        self.train_reading = replace(self._reading, transforms=changed)
        self.chance = Chance(seed, views)
        self.augment = self.chance if train_transform is not None else None

    def part(self, key: str, given: Any, replaced: bool) -> Part:
        """Returns the set that was given for ``train``, ``val`` or ``test`` (:func:`~tutelage.data.parts.as_part`)."""
        return as_part(f"data.{key}", given, replaced)

    def found(self, key: str, part: Part) -> FoundLabels:
        """Returns the labels of ``train``, ``val`` or ``test``."""
        return labels_of(part.name, part.dataset, self.fields, self.label_reader, self.check)

    @property
    def shared(self) -> dict[str, Any]:
        """Returns arguments that give another object the same datasets, already made, with their labels."""
        return {name: self.parts.get(name) for name in ("train", "val", "test")}

    def load(self) -> tuple[Examples, Examples]:
        """Returns all samples by key; reads only a few, to detect datasets that draw random numbers.

        Raises:
            TutelageError: a sample cannot be read.
        """
        part, labels = self.parts["train"], self._labels["train"]
        train, weights = part.dataset, part.weights
        if "test" in self.parts:
            test, test_labels = self.parts["test"].dataset, self._labels["test"]
        else:
            left, taken = divide(len(labels), self.test_size, "data.test_size", self.split_seed, "test")
            test, test_labels = DrawnPart(part.name, train, taken.tolist()), labels[taken]
            train, labels = DrawnPart(part.name, train, left.tolist()), labels[left]
            weights = weights if weights is None else weights[left]
        if weights is not None:  # the loader's own
            self.sampler = Weighted(weights.tolist(), part.count, part.replacement)
        parts = [("data.train", train)]
        if "val" in self.parts:
            parts.append(("data.val", self.parts["val"].dataset))
            labels = torch.cat([labels, self._labels["val"]])
        pool = Samples(parts, self.fields, self.check)
        self.look_for_chance(pool)
        return Examples(pool, labels), Examples(Samples([("data.test", test)], self.fields, self.check), test_labels)

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """Uses the ``val`` set for validation, or draws it from the training set."""
        if "val" not in self.parts:
            return super().split(count)
        first = count - len(self._labels["val"])
        return torch.arange(first), torch.arange(first, count)

    def checked(self, part: str, examples: Examples) -> Examples:
        """Checks that labels are valid (or absent in training) and shapes equal.

        Raises:
            TutelageError: they are not; names the sample.
        """
        known = has_label(examples.labels)
        if part == "train" and "val" in self.parts:
            known[len(known) - len(self._labels["val"]) :] = True
        if part == "test" or not ("val" in self.parts or known.any()):
            known[:] = True
        one = known.view(-1, *[1] * (examples.labels.ndim - 1))
        filled = torch.where(one, examples.labels, 0)
        found = self._set(examples, self._reading)
        checked_labels(f"data.{part}", filled, self.num_classes, self.num_outputs, found.name_of)
        if part == "train":
            shape, label_shape = self._look(self._set(examples, self.train_reading), part)
            self.input_shape = self._given_shape = tuple(self._given_shape or shape)
            if brought := self._reading.labels:
                brought = replace(brought, shape=label_shape)
                self._reading, self.train_reading = (
                    replace(one, labels=brought) for one in (self._reading, self.train_reading)
                )
        self._look(self._set(examples, self._reading), part)
        return examples

    def as_set(self, examples: Examples, keys: Tensor) -> SampleSet:
        """Returns some of the examples, each in a fixed view."""
        return SampleSet(examples, keys, self._reading)

    def any_label(self, found: SampleSet) -> bool:
        """Checks whether any label is known; where labels come with the samples, reads until one is."""
        if self._reading.labels is None:
            return super().any_label(found)
        rows = has_label(found.labels).nonzero()[:, 0]
        return any(bool(has_label(found[0, some][LABEL]).any()) for some in rows.split(_AT_ONCE))

    def for_training(self, plain: SampleSet, examples: Examples) -> SampleSet:
        """Returns the training set with another view in each epoch, if anything draws random numbers."""
        chance = replace(self.chance, seed=self.seed)
        return SampleSet(examples, plain.keys, self.train_reading, chance, shows_views=self.augment is not None)

    def per_epoch(self, train: SampleSet) -> SampleSet:
        """Returns the training set for an epoch, repeated ``repeat`` times."""
        own: SampleSet = super().per_epoch(train)
        return own if self.repeat == 1 else own.repeated(self.repeat)

    def pictures(self, inputs: Tensor) -> Tensor | None:
        """Returns [B, 1 or 3, H, W] in [0, 1], with the normalisation undone if known, else rescaled by min and max."""
        if inputs.ndim != 4 or inputs.shape[1] not in (1, 3) or not inputs.is_floating_point():
            return None
        if self._reading.mean is not None:
            mean, std = self._reading.statistics(inputs)
            return (inputs * std + mean).clamp(0, 1)
        low, high = inputs.aminmax()
        return inputs if low >= 0 and high <= 1 else (inputs - low) / (high - low)

    # -- checks -------------------------------------------------------------------------------------------------------

    def _check_options(self, views: int | None, mean: Any, std: Any) -> None:
        for key, value in (("views", views), ("check", self.check), ("repeat", self.repeat)):
            if value is not None and value < 1:
                raise TutelageError(f"data.{key} must be at least 1; found {value}")
        if self.repeat > 1 and isinstance(self.sampler, Repeated):
            raise TutelageError(f"data.repeat={self.repeat}: data.sampler repeats examples, too; set one of both")
        if (mean is None) != (std is None):
            raise TutelageError("data.mean and data.std go together: give both, or neither")
        if std is not None and min(std) <= 0:
            raise TutelageError(f"data.std must be above 0; found {list(std)}")

    def _set(self, examples: Examples, reading: Reading) -> SampleSet:
        return SampleSet(examples, torch.arange(len(examples)), reading)

    def _look(self, found: SampleSet, part: str) -> tuple[list[int], tuple[int, ...]]:
        """Checks batches of a few samples of each dataset; returns the shapes of an input and of a label."""
        shape: list[int] = []
        label_shape: tuple[int, ...] = ()
        for rows in torch.tensor(found.samples.spread(self.check)).split(64):
            batch = found[0, rows]
            label_shape = label_shape or batch[LABEL].shape[1:]
            shape = shape or list(batch[INPUT].shape[1:])
            expected = list(self._given_shape or shape)
            if self._reading.collate is None and list(batch[INPUT].shape[1:]) != expected:
                raise TutelageError(
                    f"data.{part}: inputs are {list(batch[INPUT].shape[1:])}; expected {expected}, as the first is or "
                    "data.input_shape says"
                )
            inputs = batch[INPUT]
            if inputs.is_floating_point() and not (good := inputs.isfinite().flatten(1).all(1)).all():
                where = found.samples.place(int(batch["key"][~good][0]))[0]
                raise TutelageError(f"{where}: its input is not finite")
        return shape, label_shape

    def look_for_chance(self, pool: Samples) -> None:
        """Detects whether the training set draws random numbers, and whether these are reproducible."""
        rows = pool.spread(_COPIES)[:_COPIES]
        found = SampleSet(Examples(pool, torch.zeros(len(pool), dtype=torch.long)), torch.arange(len(pool)),
                          self.train_reading, self.chance)  # fmt: skip
        first, again, other = (found[epoch, torch.tensor(rows)][INPUT] for epoch in (0, 0, 1))
        if not torch.equal(first, again):
            log.warning(
                "%s: the same sample differs from one reading to the next, with generators of its own; it can't be "
                "resumed to the bit, nor be the same for teacher and student (give it set_random_seed(seed), or let "
                "it draw from the global generators)",
                self.name,
            )
        if not torch.equal(first, other):
            self.augment = self.chance
