"""Finds the labels of a user's dataset, and names of classes and inputs, without reading every sample if possible."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from tutelage.data.chance import own_generators, seed_generators
from tutelage.data.fields import Fields, entries
from tutelage.data.labels import describe
from tutelage.data.sample_labels import LabelReader
from tutelage.data.samples import Samples
from tutelage.data.streams import Head
from tutelage.errors import TutelageError

log = logging.getLogger(__name__)

_ATTRIBUTES = ("targets", "labels", "y")
_MANY = 20_000  # number of samples that takes a while to read


@dataclass(frozen=True)
class FoundLabels:
    """The labels of a dataset.

    Attributes:
        table: [N] int64 or [N, K] float32; where labels have more axes, as those of pixels do, they come with the
            samples, and this is [N, 1, …] zeros with as many axes.
        largest: the largest class, as far as it is known.
    """

    table: Tensor
    largest: int | None


def labels_of(name: str, dataset: Any, fields: Fields, reader: LabelReader, looked_at: int | None) -> FoundLabels:
    """Finds the label of every sample.

    A column (``targets``, ``labels``, ``y``, that of a table, a tensor of a TensorDataset) is taken where samples agree
    with it; else each sample is read once, unless labels have axes and are integers.

    Args:
        name: name of the dataset, for messages.
        dataset: has ``len`` and ``[row]``.
        fields: what a sample consists of.
        reader: of one label.
        looked_at: how many samples are compared with a column, and how many labels with axes are looked at; None for
            all.

    Raises:
        TutelageError: a label is missing or is none, or labels differ in their shapes; names the sample.
    """
    samples = Samples([(name, dataset)], fields, looked_at)
    if looked_at is not None and len(samples) > looked_at:
        log.info(
            "%s: %d of %d samples are read before training; that others have changed between two runs is noticed by "
            "their files alone, if a key of data names these or their folder (data.check=null: all are read)",
            name, looked_at, len(samples),
        )  # fmt: skip

    def read(row: int) -> Tensor:
        seed_generators(0, "sample", 0, row)
        where = samples.place(row)[0]
        return reader(fields.label(samples.sample(row), where), where)

    with own_generators():
        column, first = _column(dataset, fields.label_place(_entries_of(samples))), read(0)
        if column is not None and len(column) == len(samples):
            column = reader.column(column, name)
            rows = samples.spread(looked_at)
            if not all(_same(column[row], read(row)) for row in rows):
                column = None
        else:
            column = None
        if first.ndim and not first.is_floating_point():
            return _with_axes(
                first, column, [read(row) for row in _looked_at(samples, column, looked_at)], len(samples)
            )
        if column is None:
            if len(samples) > _MANY:
                log.info(
                    "%s: reading the labels of %d samples; an attribute `targets` would save it", name, len(samples)
                )
            column = _stacked(first, map(read, range(len(samples))), name)
        return FoundLabels(column, None if column.is_floating_point() else int(column.max()))


def _entries_of(samples: Samples) -> Any:
    seed_generators(0, "sample", 0, 0)
    return entries(samples.sample(0))


def _looked_at(samples: Samples, column: Tensor | None, most: int | None) -> list[int]:
    """All samples, where that tells the largest class and is not too much; none where a column tells it."""
    return samples.spread(most) if column is None and (most is None or len(samples) <= most) else []


def _with_axes(first: Tensor, column: Tensor | None, read: list[Tensor], count: int) -> FoundLabels:
    known = [int(one.max()) for one in ([column] if column is not None else read) if one.numel()]
    return FoundLabels(torch.zeros(count, *[1] * first.ndim, dtype=torch.long), max(known) if known else None)


def _stacked(first: Tensor, labels: Iterable[Tensor], name: str) -> Tensor:
    found = []
    for row, label in enumerate(labels):
        if label.shape != first.shape or label.dtype != first.dtype:
            advice = " (data.label_dtype=float makes numbers of all)" if label.shape == first.shape else ""
            raise TutelageError(
                f"{name}: sample {row}: its label is {list(label.shape)} {label.dtype}; that of sample 0 is "
                f"{list(first.shape)} {first.dtype}{advice}"
            )
        found.append(label)
    return torch.stack(found)


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _column(dataset: Any, place: Any) -> Tensor | None:
    """Labels of the whole dataset at once, or None."""
    if isinstance(dataset, Subset):
        inner = _column(dataset.dataset, place)
        return None if inner is None else inner[torch.as_tensor(list(dataset.indices), dtype=torch.long)]
    if isinstance(dataset, ConcatDataset):
        parts = [_column(part, place) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        alike = len(known) == len(parts) and len({(part.shape[1:], part.dtype) for part in known}) == 1
        return torch.cat(known) if alike else None
    if isinstance(dataset, TensorDataset):
        return _numbers(dataset.tensors[place]) if isinstance(place, int) and place < len(dataset.tensors) else None
    if isinstance(place, str) and place in (getattr(dataset, "column_names", None) or ()):
        column = getattr(dataset, "column", None)
        return _numbers(column(place) if callable(column) else dataset[place][:])
    for name in _ATTRIBUTES:
        if (found := _numbers(getattr(dataset, name, None))) is not None:
            return found
    return None


def _numbers(values: Any) -> Tensor | None:
    try:
        found = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    except (TypeError, ValueError):
        return None
    return None if found.is_complex() or not found.ndim or not found.numel() else found


def class_names_of(dataset: Any, fields: Fields) -> list[str] | None:
    """Returns the dataset's ``classes``, ``class_names`` or those of a feature; None without any."""
    dataset = _whole(dataset)
    place = (fields.places or {}).get("label")
    features = getattr(dataset, "features", None)
    if isinstance(features, dict):
        candidates = [place] if place is not None else [key for key in ("label", "labels", "target") if key in features]
        for key in candidates:
            if names := getattr(features.get(key), "names", None):
                return [str(name) for name in names]
    if callable(names := getattr(dataset, "names", None)):
        for key in [place] if place is not None else ["label", "labels", "fine_label"]:
            if isinstance(key, str) and (found := names(key)):
                return list(found)
    for attribute in ("classes", "class_names"):
        if found := _texts(getattr(dataset, attribute, None)):
            return found
    return None


def input_names_of(dataset: Any) -> list[str] | None:
    """Returns the dataset's ``feature_names``, one for each number of an input; None without any."""
    return _texts(getattr(_whole(dataset), "feature_names", None))


def _whole(dataset: Any) -> Any:
    while isinstance(dataset, Subset | Head):
        dataset = dataset.dataset
    return dataset


def _texts(found: Any) -> list[str] | None:
    listed = isinstance(found, Sequence) and not isinstance(found, str) and found
    return [str(name) for name in found] if listed else None


def widths(
    found: Mapping[str, FoundLabels], num_classes: int | None, num_outputs: int | None, names: Sequence[str] | None
) -> tuple[int | None, int]:
    """Returns the number of classes, None of floats, and that of outputs.

    Raises:
        TutelageError: the parts' labels are of different kinds, or nothing says how many classes there are.
    """
    train = found["train"].table
    for part, one in found.items():
        if one.table.shape[1:] != train.shape[1:] or one.table.dtype != train.dtype:
            raise TutelageError(
                f"data.{part}: labels are {describe(one.table)}; those of data.train are {describe(train)}"
            )
    if train.is_floating_point():
        return num_classes, num_outputs or num_classes or train.shape[1]
    largest = found["train"].largest
    count = num_classes or num_outputs or (len(names) if names else None)
    if count is None and largest is not None and largest < 0:
        raise TutelageError(
            f"data.train: the largest label is {largest}; expected numbers of classes, from 0 on (data.ignore_index is "
            "that of examples without a label)"
        )
    if count is None and largest is None:
        raise TutelageError(
            "data.num_classes is needed: not all labels are read to find the largest, those of pixels and tokens as "
            "that would take long (data.check=null does), those of a stream as they come with its samples. Labels of "
            "0 and 1 that answer one question each (task=multilabel) need data.label_dtype=float instead"
        )
    return (count, count) if count else ((largest or 0) + 1,) * 2
