"""What the networks of a run answered, from the predictions in their folders."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.evaluation.figures import confusion, figures_of_own
from tutelage.evaluation.predictions import Predictions, shared
from tutelage.report.charts import Bin
from tutelage.report.runs import Run
from tutelage.stages import read_answers

BINS = 15
_FEW = 10  # examples of a bin, over all seeds
_KEPT = 64  # of a network and a split, in memory


class Answers:
    """Reads predictions, keeping those that were asked for last.

    Args:
        weights: of control and student.
    """

    def __init__(self, weights: str):
        self.weights = weights
        self.problems: dict[Path, str] = {}  # folder → why its answers are not shown
        self._read = lru_cache(maxsize=_KEPT)(self._look)

    def of(self, run: Run, role: str, split: str) -> Predictions | None:
        """The logits of a finished network; None where its folder is gone, can't be read or does not have them."""
        place = run.place(role)
        return self._read(place, run.weights(role, self.weights), split) if place else None

    def figures(self, run: Run, role: str, split: str) -> dict[str, float] | None:
        """Of a network on a split, beside the teacher on the examples that both answered."""
        if (own := self.of(run, role, split)) is None:
            return None
        return figures_of_own(own, None if role == "teacher" else self.of(run, "teacher", split))

    def _look(self, place: Path, weights: str, split: str) -> Predictions | None:
        try:
            return read_answers(place, weights, split)
        except (TutelageError, OSError, SafetensorError) as error:
            self.problems[place] = str(error)
            return None


def both(p: Predictions, q: Predictions) -> tuple[Predictions, Predictions] | None:
    """The two on the same examples."""
    return (p, q) if torch.equal(p.key, q.key) else shared(p, q)


def total_confusion(found: Sequence[Predictions]) -> Tensor:
    """[C, C] float64: mean counts over runs."""
    return torch.stack([confusion(p) for p in found]).double().mean(0)


def per_class(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Precision, recall and F1 [C] of counts [C, C]; 0 where a class was never predicted or never there."""
    right = matrix.diagonal().double()
    precision = right / matrix.sum(0).clamp_min(1e-12)
    recall = right / matrix.sum(1).clamp_min(1e-12)
    return precision, recall, 2 * right / (matrix.sum(0) + matrix.sum(1)).clamp_min(1e-12)


def reliability_bins(found: Sequence[Predictions], bins: int = BINS) -> list[Bin | None]:
    """Bins of :func:`~tutelage.evaluation.figures.expected_calibration_error`, over all runs together."""
    confidence = torch.cat([p.logits.double().softmax(1).amax(1) for p in found])
    right = torch.cat([p.choice == p.label for p in found]).double()
    place = torch.bucketize(confidence, torch.arange(1, bins, dtype=torch.float64) / bins)
    count, sure, good = (
        torch.zeros(bins, dtype=torch.float64).index_add_(0, place, x)
        for x in (torch.ones_like(right), confidence, right)
    )
    return [
        Bin(float(sure[b] / n), float(good[b] / n), float(n / len(right)), few=bool(n < _FEW)) if n else None
        for b, n in enumerate(count)
    ]


def entropy(logits: Tensor, temperature: float) -> float:
    """Mean entropy of softmax(z/T), in nats."""
    log_q = (logits.double() / temperature).log_softmax(1)
    return float(-(log_q.exp() * log_q).sum(1).mean())


def off_label(p: Predictions, temperature: float) -> float:
    """Mean probability that is not the label's, at a temperature."""
    q = (p.logits.double() / temperature).softmax(1)
    return float(1 - q.gather(1, p.label[:, None]).mean())
