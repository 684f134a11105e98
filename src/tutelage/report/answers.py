"""Reads the predictions of a run's networks from its folders."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from tutelage.errors import TutelageError
from tutelage.report.charts import Bin
from tutelage.report.runs import Run
from tutelage.tasks.metrics.classification import bin_of, confusion, figures_of_own
from tutelage.tasks.predictions import (
    Labelled,
    SavedPredictions,
    arrays,
    confidence,
    log_softmax,
    read_predictions,
    shared,
)

BINS = 15
_FEW = 10  # examples in a bin, over all seeds, below which it is marked as uncertain
_KEPT = 64  # predictions in memory, each of a network and a split


class Answers:
    """Reads predictions and caches the most recent ones.

    Args:
        weights: which weights of control and student: ``last``, ``best`` or ``average``.
    """

    def __init__(self, weights: str):
        self.weights = weights
        self.problems: dict[Path, str] = {}  # folder → why its predictions are not shown
        self._read = lru_cache(maxsize=_KEPT)(self._look)

    def of(self, run: Run, role: str, split: str) -> SavedPredictions | None:
        """Returns the predictions of a finished network; None if its folder is missing, unreadable or has none."""
        place = run.place(role)
        return self._read(place, run.weights(role, self.weights), split) if place else None

    def figures(self, run: Run, role: str, split: str) -> dict[str, float] | None:
        """Returns a network's metrics on a split, with fidelity on the examples that it and the teacher share."""
        if (own := self.of(run, role, split)) is None:
            return None
        return figures_of_own(own, None if role == "teacher" else self.of(run, "teacher", split))

    def _look(self, place: Path, weights: str, split: str) -> SavedPredictions | None:
        try:
            return read_predictions(place, weights, split)
        except (TutelageError, OSError, SafetensorError) as error:
            self.problems[place] = str(error)
            return None


def both(p: SavedPredictions, q: SavedPredictions) -> tuple[SavedPredictions, SavedPredictions] | None:
    """Returns two networks' predictions on their common examples; None if there are none."""
    return (p, q) if np.array_equal(p.key, q.key) else shared(p, q)


def total_confusion(found: Sequence[SavedPredictions]) -> np.ndarray:
    """Returns the confusion matrix [C, C] float64, mean counts over runs."""
    return np.mean([confusion(p) for p in found], axis=0)


def per_class(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns precision, recall and F1 [C] of counts [C, C]; 0 for a class without predictions or examples."""
    right = matrix.diagonal()
    precision = right / matrix.sum(0).clip(1e-12)
    recall = right / matrix.sum(1).clip(1e-12)
    return precision, recall, 2 * right / (matrix.sum(0) + matrix.sum(1)).clip(1e-12)


def reliability_bins(found: Sequence[Labelled], bins: int = BINS) -> list[Bin | None]:
    """Bins of :func:`~tutelage.tasks.metrics.classification.expected_calibration_error`, over all runs together."""
    each = [arrays(p) for p in found]
    sure = np.concatenate([confidence(p) for p in each])
    right = np.concatenate([p.choice == p.label for p in each])
    place = bin_of(sure, bins)
    count, total, good = (np.bincount(place, x, minlength=bins) for x in (np.ones_like(sure), sure, right))
    return [
        Bin(float(total[b] / n), float(good[b] / n), float(n / len(right)), few=bool(n < _FEW)) if n else None
        for b, n in enumerate(count)
    ]


def entropy(logits: np.ndarray, temperature: float) -> float:
    """Returns the mean entropy of softmax(z/T), in nats."""
    log_q = log_softmax(logits, temperature)
    return float(-(np.exp(log_q) * log_q).sum(1).mean())


def off_label(p: SavedPredictions, temperature: float) -> float:
    """Returns the mean probability that is not the label's, at a temperature."""
    log_q = log_softmax(p.logits, temperature)
    return float(1 - np.exp(log_q[np.arange(len(p.label)), p.label]).mean())
