"""Labels of texts as files have them, as tensors: names or numbers of classes, or numbers to predict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.data.text.rows import Rows
from tutelage.errors import TutelageError, nearest
from tutelage.types import NO_LABEL


@dataclass(frozen=True)
class Labels:
    """The labels of all splits.

    Attributes:
        tables: split → [N] int64, or [N, 1] float32.
        num_classes: None of floats.
        num_outputs: size of the last axis of logits.
        names: of the classes; None where they are numbers.
    """

    tables: dict[str, Tensor]
    num_classes: int | None
    num_outputs: int
    names: list[str] | None


def labels_of(
    parts: Mapping[str, Rows], class_names: Sequence[str] | None, num_classes: int | None, dtype: str | None
) -> Labels:
    """Finds out what kind of labels a data set has.

    They are names of classes if ``class_names`` has them all; else whole numbers from 0, or numbers with a fraction,
    which are to be predicted; else names, those of the training set in alphabetical order.

    Args:
        parts: split → its rows.
        class_names: the names of the classes in order; None: as found.
        num_classes: their number; None: as found.
        dtype: ``int`` or ``float``, where a label's look would mislead; None: by its look.

    Raises:
        TutelageError: an unknown label, one that is no number, or none in validation or test; names file and line.
    """
    if dtype not in (None, "int", "float"):
        raise TutelageError(f"data.label_dtype must be int, float or null; found {dtype!r}")
    columns = {part: [_plain(label) for label in rows.labels] for part, rows in parts.items()}
    for part, labels in columns.items():
        if part != "train" and None in labels:
            place = parts[part].places(labels.index(None))
            raise TutelageError(f"{place}: no label, and it is in the {part} set, which is measured by labels")
    train = [label for label in columns["train"] if label is not None]
    if not train:
        raise TutelageError(f"{parts['train'].places(0)}: neither it nor any other training example has a label")
    names = list(class_names) if class_names else parts["train"].names
    known = {str(label) for label in train}
    if dtype != "float" and names and (known <= set(names) or not all(_is_whole(label) for label in train)):
        return _by_name(parts, columns, names)
    if dtype == "float" or (dtype is None and not _all_whole(train) and all(_is_number(label) for label in train)):
        tables = {part: _numbers(parts[part], labels) for part, labels in columns.items()}
        return Labels(tables, None, 1, None)
    if dtype == "int" or _all_whole(train):
        tables = {part: _whole(parts[part], labels) for part, labels in columns.items()}
        count = num_classes or (len(names) if names else int(tables["train"].max()) + 1)
        _check_range(parts, tables, count)
        return Labels(tables, count, count, names)
    if sum(map(_is_number, train)) > len(train) / 2:
        row = next(row for row, label in enumerate(columns["train"]) if label is not None and not _is_number(label))
        raise TutelageError(
            f"{parts['train'].places(row)}: the label {columns['train'][row]!r} is no number, as most others are; if "
            "they are names of classes, list them in data.class_names"
        )
    return _by_name(parts, columns, sorted(known))


def _plain(label: Any) -> Any:
    if isinstance(label, str):
        return label.strip() or None
    return int(label) if isinstance(label, bool) else label


def _is_number(label: Any) -> bool:
    try:
        return math.isfinite(float(label))
    except (TypeError, ValueError):
        return False


def _is_whole(label: Any) -> bool:
    try:
        int(label)
    except (TypeError, ValueError):
        return False
    return not isinstance(label, float) or label.is_integer()


def _all_whole(labels: Sequence[Any]) -> bool:
    return all(map(_is_whole, labels))


def _by_name(parts: Mapping[str, Rows], columns: Mapping[str, list[Any]], names: list[str]) -> Labels:
    if len(names) < 2:
        raise TutelageError(
            f"{parts['train'].places(0)}: its label {names[0]!r} is that of all training examples; expected at least "
            "two classes"
        )
    number = {name: index for index, name in enumerate(names)}
    tables = {}
    for part, labels in columns.items():
        for row, label in enumerate(labels):
            if label is not None and str(label) not in number:
                raise TutelageError(
                    f"{parts[part].places(row)}: the label {label!r} is none of the classes; "
                    f"{nearest(str(label), names)}"
                )
        tables[part] = torch.tensor([NO_LABEL if label is None else number[str(label)] for label in labels])
    return Labels(tables, len(names), len(names), names)


def _numbers(rows: Rows, labels: Sequence[Any]) -> Tensor:
    for row, label in enumerate(labels):
        if label is not None and not _is_number(label):
            raise TutelageError(f"{rows.places(row)}: the label {label!r} is no finite number, as others are")
    return torch.tensor([[math.nan if label is None else float(label)] for label in labels])


def _whole(rows: Rows, labels: Sequence[Any]) -> Tensor:
    for row, label in enumerate(labels):
        if label is not None and not _is_whole(label):
            raise TutelageError(f"{rows.places(row)}: the label {label!r} is no whole number, as others are")
    return torch.tensor([NO_LABEL if label is None else int(label) for label in labels])


def _check_range(parts: Mapping[str, Rows], tables: Mapping[str, Tensor], count: int) -> None:
    for part, labels in tables.items():
        wrong = ((labels < 0) & (labels != NO_LABEL)) | (labels >= count)
        if wrong.any():
            row = int(wrong.int().argmax())
            raise TutelageError(
                f"{parts[part].places(row)}: the label is {int(labels[row])}; expected 0 to {count - 1}"
            )
