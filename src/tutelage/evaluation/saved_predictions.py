"""Predictions as NumPy arrays, read from a finished folder without PyTorch, whose import takes half a gigabyte."""

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
    if len(shape) != 2 or 0 in shape or label.shape != shape[:1] or key.shape != shape[:1]:
        raise TutelageError(
            "predictions are logits [N, C], label [N] and key [N] with N and C at least 1; found "
            f"{list(shape)}, {list(label.shape)} and {list(key.shape)}"
        )
    if not (finite := np.isfinite(logits)).all():
        row, column = np.argwhere(~finite)[0].tolist()
        raise TutelageError(
            f"example of key {int(key[row])}: expected finite logits, found {float(logits[row, column])} "
            f"for class {column}; {int((~finite.all(1)).sum())} of {shape[0]} examples have such logits"
        )
    outside = (label < 0) | (label >= shape[1])
    if outside.any():
        row = int(outside.argmax())
        raise TutelageError(
            f"example of key {int(key[row])}: expected a label in [0, {shape[1]}), found "
            f"{int(label[row])}; {int(outside.sum())} of {shape[0]} examples have such labels"
        )


def read_predictions(folder: Path, weights: str, split: str) -> SavedPredictions | None:
    """Reads the predictions of a finished stage on one split.

    Args:
        folder: folder of the stage.
        weights: last or best.
        split: train, val or test.

    Returns:
        The predictions; None for ``train`` if the folder has none.

    Raises:
        TutelageError: the file is damaged.
    """
    manifest.check_file(folder, "predictions.safetensors")
    with safe_open(folder / "predictions.safetensors", framework="np") as file:
        if split == TRAIN and f"{weights}.{TRAIN}.logits" not in file.keys():  # noqa: SIM118
            return None
        fields = ("logits", "label", "key")
        return SavedPredictions(*(file.get_tensor(f"{weights}.{split}.{field}") for field in fields))


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


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns log softmax(z/T), [N, C] float64."""
    z = logits.astype(np.float64) / temperature
    z -= z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def confidence(p: SavedPredictions) -> np.ndarray:
    """Returns the highest probability of each example, [N] float64."""
    z = p.logits.astype(np.float64)
    return 1 / np.exp(z - z.max(1, keepdims=True)).sum(1)
