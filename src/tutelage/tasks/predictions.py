"""Predictions as NumPy arrays, read from a finished folder without PyTorch, whose import takes half a gigabyte."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import safe_open

from tutelage.errors import TutelageError
from tutelage.runtime import manifest

TRAIN = "train"  # the split of which not every folder has predictions


class Labelled(Protocol):
    """Logits [N, C], label [N] and key [N] as arrays or as tensors on the host."""

    @property
    def logits(self) -> Any: ...  # noqa: D102
    @property
    def label(self) -> Any: ...  # noqa: D102
    @property
    def key(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class SavedPredictions:
    """Predictions as arrays, checked like :class:`~tutelage.evaluation.predictions.Predictions`.

    Args:
        logits: [N, C], finite.
        label: [N] integers in [0, C).
        key: [N] integers, keys of the examples.

    Raises:
        TutelageError: see :func:`check`.
    """

    logits: np.ndarray
    label: np.ndarray
    key: np.ndarray

    def __post_init__(self) -> None:
        check(self)

    @property
    def fields(self) -> dict[str, np.ndarray]:
        """Returns all three by name."""
        return {"logits": self.logits, "label": self.label, "key": self.key}

    @property
    def choice(self) -> np.ndarray:
        """Returns the classes of the highest logits, [N]; the first at ties."""
        return self.logits.argmax(1)


def arrays(p: Labelled) -> SavedPredictions:
    """Returns predictions as arrays, which share the memory of tensors."""
    return p if isinstance(p, SavedPredictions) else SavedPredictions(*map(np.asarray, (p.logits, p.label, p.key)))


def check(p: Labelled) -> None:
    """Checks that metrics can be computed from these predictions.

    Raises:
        TutelageError: no example, shapes that differ, a label out of range or a logit that is not finite; of the last
            two the first example is named by its key.
    """
    logits, label, key = map(np.asarray, (p.logits, p.label, p.key))
    shape = logits.shape
    if label.dtype.kind == "f":
        _check_numbers(logits, label, key)
        return
    if len(shape) != 2 or 0 in shape or label.shape != shape[:1] or key.shape != shape[:1]:
        raise TutelageError(
            "predictions are logits [N, C], label [N] and key [N] with N and C at least 1; found "
            f"{list(shape)}, {list(label.shape)} and {list(key.shape)}"
        )
    _check_finite(logits, key, "class")
    outside = (label < 0) | (label >= shape[1])
    if outside.any():
        row = int(outside.argmax())
        raise TutelageError(
            f"example of key {int(key[row])}: expected a label in [0, {shape[1]}), found "
            f"{int(label[row])}; {int(outside.sum())} of {shape[0]} examples have such labels"
        )


def _check_numbers(logits: np.ndarray, label: np.ndarray, key: np.ndarray) -> None:
    """Checks predictions of several labels or numbers an example; an unknown label is NaN."""
    shape = logits.shape
    if len(shape) != 2 or 0 in shape or label.shape != shape or key.shape != shape[:1]:
        raise TutelageError(
            "predictions are logits [N, K], label [N, K] and key [N] with N and K at least 1; found "
            f"{list(shape)}, {list(label.shape)} and {list(key.shape)}"
        )
    _check_finite(logits, key, "output")
    if np.isinf(label).any():
        raise TutelageError(f"example of key {int(key[np.isinf(label).any(1).argmax()])}: its label is infinite")


def _check_finite(logits: np.ndarray, key: np.ndarray, column_name: str) -> None:
    if not (finite := np.isfinite(logits)).all():
        row, column = np.argwhere(~finite)[0].tolist()
        raise TutelageError(
            f"example of key {int(key[row])}: expected finite logits, found {float(logits[row, column])} "
            f"for {column_name} {column}; {int((~finite.all(1)).sum())} of {len(key)} examples have such logits"
        )


@dataclass(frozen=True, eq=False)
class SavedTotals:
    """Totals of each example that a task keeps in place of logits, which would not fit on disk.

    Args:
        fields: name → [N] or [N, C]; ``key`` [N] is among them.
    """

    fields: Mapping[str, np.ndarray]

    @property
    def key(self) -> np.ndarray:
        """Returns [N] integers: the number of each example."""
        return self.fields["key"]


Saved = SavedPredictions | SavedTotals


def as_saved(found: Any) -> Saved:
    """Returns predictions or totals as arrays, which share the memory of tensors."""
    return found if isinstance(found, SavedPredictions | SavedTotals) else saved(found.fields)


def saved(fields: Mapping[str, Any]) -> Saved:
    """Returns what was stored of a network on a split, by what its fields are.

    Args:
        fields: name → array or tensor [N, …].
    """
    found = {name: np.asarray(field) for name, field in fields.items()}
    return SavedPredictions(**found) if found.keys() == {"logits", "label", "key"} else SavedTotals(found)


def read_saved(folder: Path, weights: str, split: str) -> Saved | None:
    """Reads what the network of a finished stage answered on one split: predictions, or totals of them.

    Args:
        folder: folder of the stage.
        weights: last, best or average.
        split: train, val or test.

    Returns:
        The predictions; None for ``train`` if the folder has none.

    Raises:
        TutelageError: the file is damaged.
    """
    manifest.check_file(folder, "predictions.safetensors")
    begin = f"{weights}.{split}."
    with safe_open(folder / "predictions.safetensors", framework="np") as file:
        names = [name for name in file.keys() if name.startswith(begin)]  # noqa: SIM118
        if split == TRAIN and not names:
            return None
        return saved({name.removeprefix(begin): file.get_tensor(name) for name in names})


def read_predictions(folder: Path, weights: str, split: str) -> SavedPredictions | None:
    """Reads the logits of a finished stage's network on one split.

    Args:
        folder: of the stage.
        weights: last, best or average.
        split: train, val or test.

    Returns:
        The predictions; None of ``train`` where the folder does not have it.

    Raises:
        TutelageError: the file is damaged, or the task keeps no logits.
    """
    found = read_saved(folder, weights, split)
    if isinstance(found, SavedTotals):
        raise TutelageError(f"{folder} has no logits of its examples, only totals of them")
    return found


def shared(a: Labelled, b: Labelled) -> tuple[SavedPredictions, SavedPredictions] | None:
    """Returns the predictions of both on their common examples, ordered by key; None if there are none.

    Keys must be distinct in each.
    """
    p, q = arrays(a), arrays(b)
    both = np.intersect1d(p.key, q.key)
    return (_of_keys(p, both), _of_keys(q, both)) if len(both) else None


def _of_keys(p: SavedPredictions, keys: np.ndarray) -> SavedPredictions:
    order = p.key.argsort(kind="stable")
    rows = order[np.searchsorted(p.key[order], keys)]
    return SavedPredictions(p.logits[rows], p.label[rows], p.key[rows])


def check_same_examples(p: SavedPredictions, teacher: SavedPredictions) -> None:
    """Checks that a teacher answered the same examples in the same order, with as many outputs.

    Raises:
        TutelageError: it did not.
    """
    if p.logits.shape != teacher.logits.shape:
        raise TutelageError(
            f"the teacher answered [examples, classes] {list(teacher.logits.shape)}, the network {list(p.logits.shape)}"
        )
    if not np.array_equal(p.key, teacher.key):
        first = int((p.key != teacher.key).argmax())
        raise TutelageError(
            f"teacher and network answered other examples: at index {first} the teacher's key is "
            f"{int(teacher.key[first])}, the network's {int(p.key[first])}"
        )


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns log softmax(z/T), [N, C] float64."""
    z = logits.astype(np.float64) / temperature
    z -= z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def confidence(p: SavedPredictions) -> np.ndarray:
    """Returns the highest probability of each example, [N] float64."""
    z = p.logits.astype(np.float64)
    return 1 / np.exp(z - z.max(1, keepdims=True)).sum(1)
