"""One class for each position of an example: pixels, tokens, the next token."""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.tasks.base import Task, Weighted, kl, known_positions
from tutelage.tasks.figure_kinds import FigureKind
from tutelage.tasks.metrics import dense
from tutelage.tasks.predictions import Saved, SavedTotals

SHARED = {
    "nll": FigureKind("NLL", "min"),
    "agreement": FigureKind("agreement", "max", True),
    "kl_teacher": FigureKind("KL", "min"),
}


class Dense(Task):
    """Logits [B, …, C], labels [B, …] of integers in [0, C), or −100 for none.

    Of each example totals over its positions are stored, not its logits, which would not fit on disk; so a network is
    compared with its teacher only where the teacher ran beside it (the student, not the control of many students).
    """

    keeps_logits = False
    axes: ClassVar[int]  # of the labels
    beside_teacher = ("agreement", "kl_teacher")

    def check_labels(self, name: str, labels: Tensor) -> None:
        """Refuses labels of another shape, and floats."""
        if labels.dim() != self.axes or labels.is_floating_point():
            raise self.wrong_labels(name, labels)

    def logits_shape(self, label: Tensor, outputs: int) -> list[int]:
        """Returns [B, …, C]."""
        return [*label.shape, outputs]

    def means(self, logits: Tensor, label: Tensor, teacher: Tensor | None) -> dict[str, Weighted]:
        """Returns accuracy, NLL, agreement and KL, over positions with a label."""
        z, y = known_positions(logits, label)
        if not len(y):
            return {}
        found: dict[str, Weighted] = {
            "accuracy": ((z.argmax(-1) == y).float().mean(), len(y)),
            "nll": (F.cross_entropy(z, y), len(y)),
        }
        if teacher is not None:
            t = teacher[label >= 0]
            found["agreement"] = ((z.argmax(-1) == t.argmax(-1)).float().mean(), len(y))
            found["kl_teacher"] = (kl(t, z).mean(), len(y))
        return found

    def rows(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Returns probabilities [n, C] and labels [n] of positions with a label."""
        z, y = known_positions(logits, label)
        return z.softmax(-1), y

    def store(self, logits: Tensor, label: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        """Returns totals of each example over its positions with a label."""
        known = label >= 0
        choice = logits.argmax(-1)

        def total(values: Tensor) -> Tensor:
            return torch.where(known, values, 0).flatten(1).sum(1)

        flat = F.cross_entropy(logits.flatten(0, -2), label.clamp(min=0).flatten(), reduction="none")
        found = {
            "positions": known.flatten(1).sum(1),
            "hits": total((choice == label).long()),
            "nll": total(flat.view(label.shape).double()),
        }
        if teacher is not None:
            found["agree"] = total((choice == teacher.argmax(-1)).long())
            found["kl"] = total(kl(teacher, logits).double())
        return found

    def figures(self, own: Saved, teacher: Saved | None = None) -> dict[str, float]:
        """Returns :func:`tutelage.tasks.metrics.dense.figures`, and those of the task."""
        assert isinstance(own, SavedTotals)
        found = dense.figures(own.fields)
        return {**self.further(own), **found}

    def baseline(self, own: Saved) -> tuple[float, str] | None:
        """Returns the headline of giving every class the same probability, if it is accuracy or NLL."""
        if not (classes := len(self.output_names)):
            return None
        found = {"accuracy": 1 / classes, "nll": math.log(classes)}.get(self.headline)
        return None if found is None else (found, "giving every class the same probability")

    @abstractmethod
    def further(self, own: SavedTotals) -> dict[str, float]:
        """Returns the task's figures beside those of all dense tasks."""
