"""Answers of an exported file to labelled examples, beside those of the network that it was made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from tutelage.data.order import EpochLoader
from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import measure
from tutelage.models.tapped import run
from tutelage.tasks.base import Task
from tutelage.tasks.predictions import Saved, SavedPredictions, SavedTotals, as_saved

DRAWS = 400  # of examples, for an interval
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class AnswersOfFile:
    """A network's answers on a split.

    Attributes:
        figures: of the task.
        saved: what is stored of each example.
        difference: the largest absolute difference of a logit from the other network's.
    """

    figures: dict[str, float]
    saved: Saved
    difference: float


class Beside(nn.Module):
    """A network that is asked beside another, and notes how far its logits are from that one's.

    Args:
        net: whose logits are returned.
        reference: the other.
        fields: which fields of a batch are read.
    """

    def __init__(self, net: nn.Module, reference: nn.Module, fields: list[str]):
        super().__init__()
        self.net, self.reference, self.difference = net, reference, 0.0
        self.__dict__["_reads"] = {name: name for name in fields}

    def forward(self, **values: Tensor) -> Tensor:
        """Returns the logits of ``net``.

        Raises:
            TutelageError: the two differ in shape.
        """
        theirs = run(self.reference, values)
        own: Tensor = run(self.net, values)
        if own.shape != theirs.shape:
            raise TutelageError(f"the exported file answers {[*own.shape]}; the network {[*theirs.shape]}")
        self.difference = max(self.difference, float((own.float() - theirs.float()).abs().max()))
        return own


def measured(net: nn.Module, reference: nn.Module, fields: list[str], loader: EpochLoader, task: Task) -> AnswersOfFile:
    """Returns the answers of ``net`` on all examples of a loader, on the CPU.

    Args:
        net: an exported file as a network, or the network itself.
        reference: what its logits are compared with.
        fields: which fields of a batch both read.
        loader: of labelled examples.
        task: whose figures they are.
    """
    beside = Beside(net, reference, fields)
    found, own = measure(beside, loader, "cpu", task)
    answers = as_saved(found)
    return AnswersOfFile(task.figures(answers) | own, answers, beside.difference)


def paired_difference(task: Task, one: Saved, other: Saved) -> dict[str, float] | None:
    """Returns the difference of the headline on the same examples, and its 95 % interval over them.

    Examples are drawn with replacement, the same ones for both networks, 400 times (a fixed seed); the interval is
    that of the middle 95 % of the differences (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).

    Args:
        task: whose headline it is.
        one: the answers of a network.
        other: those of the other, to the same examples in the same order.

    Returns:
        ``value`` (one − other), ``low`` and ``high``; None if the headline is a metric of the user's own, which is not
        computed from stored answers.
    """
    return _with_interval(task, lambda rows: _score(task, one, rows) - _score(task, other, rows), one)


def with_interval(task: Task, answers: Saved) -> dict[str, float] | None:
    """Returns the headline and its 95 % interval over examples, as :func:`paired_difference` does."""
    return _with_interval(task, lambda rows: _score(task, answers, rows), answers)


def _with_interval(task: Task, value: Callable[[Any], float], answers: Saved) -> dict[str, float] | None:
    if task.headline not in task.figures(answers):
        return None
    count = len(answers.key)
    draws = np.random.default_rng(0).integers(count, size=(DRAWS, count))
    low, high = np.nanquantile([value(rows) for rows in draws], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"value": value(slice(None)), "low": float(low), "high": float(high)}


def _score(task: Task, answers: Saved, rows: Any) -> float:
    return task.figures(_rows(answers, rows)).get(task.headline, float("nan"))


def _rows(answers: Saved, rows: Any) -> Saved:
    if isinstance(answers, SavedPredictions):
        return SavedPredictions(answers.logits[rows], answers.label[rows], answers.key[rows])
    return SavedTotals({name: np.asarray(field)[rows] for name, field in answers.fields.items()})
