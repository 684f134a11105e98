"""Finds the labels and class names of a user's dataset, without reading every sample if possible."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from tutelage.data.chance import own_generators, seed_generators
from tutelage.data.fields import Fields, entries
from tutelage.data.samples import Samples
from tutelage.errors import TutelageError

log = logging.getLogger(__name__)

_ATTRIBUTES = ("targets", "labels", "y")
_COMPARED = 16  # number of samples whose labels are compared with a column
_MANY = 20_000  # number of samples that takes a while to read


def labels_of(name: str, dataset: Any, fields: Fields) -> Tensor:
    """Returns the labels of a dataset, one integer per sample, [N].

    Uses a column (``targets``, ``labels``, ``y``, that of a table, a tensor of a TensorDataset) if a few samples agree
    with it; else reads each sample once.

    Args:
        name: name of the dataset, for messages.
        dataset: has ``len`` and ``[row]``.
        fields: the fields of a sample.

    Raises:
        TutelageError: a label is missing or is not a single integer; names the sample.
    """
    samples = Samples([(name, dataset)], fields, _COMPARED)
    with own_generators():
        column = _column(dataset, fields.label_place(_entries_of(samples)))
        if column is not None and len(column) == len(samples):
            some = samples.spread(_COMPARED)
            if [int(column[row]) for row in some] == [_label(samples, row) for row in some]:
                return column
        if len(samples) > _MANY:
            log.info("%s: reading the labels of %d samples; an attribute `targets` would save it", name, len(samples))
        return torch.tensor([_label(samples, row) for row in range(len(samples))])


def _entries_of(samples: Samples) -> Any:
    seed_generators(0, "sample", 0, 0)
    return entries(samples.sample(0))


def _label(samples: Samples, key: int) -> int:
    seed_generators(0, "sample", 0, key)
    where = samples.place(key)[0]
    label = samples.fields.label(samples.sample(key), where)
    if isinstance(label, Tensor | np.ndarray | np.generic):
        if len(label.shape):
            raise TutelageError(
                f"{where}: its label has the shape {list(label.shape)}; expected one whole number, that of a class"
            )
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int):
        raise TutelageError(
            f"{where}: its label is {label!r:.40} ({type(label).__name__}); expected a whole number, that of a class"
        )
    return label


def _column(dataset: Any, place: Any) -> Tensor | None:
    """Labels of the whole dataset at once, or None; as whole numbers."""
    if isinstance(dataset, Subset):
        inner = _column(dataset.dataset, place)
        return None if inner is None else inner[torch.as_tensor(list(dataset.indices), dtype=torch.long)]
    if isinstance(dataset, ConcatDataset):
        parts = [_column(part, place) for part in dataset.datasets]
        return None if any(part is None for part in parts) else torch.cat(parts)  # type: ignore[arg-type]
    if isinstance(dataset, TensorDataset):
        return _whole(dataset.tensors[place]) if isinstance(place, int) and place < len(dataset.tensors) else None
    if isinstance(place, str) and place in (getattr(dataset, "column_names", None) or ()):
        column = getattr(dataset, "column", None)
        return _whole(column(place) if callable(column) else dataset[place][:])
    for name in _ATTRIBUTES:
        if (found := _whole(getattr(dataset, name, None))) is not None:
            return found
    return None


def _whole(values: Any) -> Tensor | None:
    try:
        found = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    except (TypeError, ValueError):
        return None
    whole = not found.is_floating_point() and not found.is_complex() and found.dtype != torch.bool
    return found.long() if found.ndim == 1 and whole else None


def class_names_of(dataset: Any, fields: Fields) -> list[str] | None:
    """Returns the dataset's ``classes``, ``class_names`` or those of a feature; None without any."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
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
        found = getattr(dataset, attribute, None)
        if isinstance(found, Sequence) and not isinstance(found, str) and found:
            return [str(name) for name in found]
    return None
