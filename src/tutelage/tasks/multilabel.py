"""Several yes-or-no labels for each example."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence
from torchmetrics import Metric
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from tutelage.errors import TutelageError
from tutelage.tasks.base import Task, Weighted
from tutelage.tasks.figure_kinds import FigureKind
from tutelage.tasks.metrics import multilabel
from tutelage.tasks.predictions import Saved, SavedPredictions

_UNKNOWN = -1  # what torchmetrics ignores


class MultiLabel(Task):
    """Logits [B, K], labels [B, K] of floats: 1, 0, or NaN where it is not known.

    Figures: mean average precision (headline), micro and macro F1, the share of right decisions, NLL of a label, and
    agreement with and KL to the teacher (:mod:`tutelage.tasks.metrics.multilabel`). Metrics of one's own get
    probabilities and integers, −1 where the label is not known (their ``ignore_index``). Arguments as of
    :class:`~tutelage.tasks.base.Task`.
    """

    name = "multilabel"
    usual = "map"
    kinds: ClassVar = {
        "map": FigureKind("mAP", "max", True),
        "f1_micro": FigureKind("micro F1", "max", True),
        "f1_macro": FigureKind("macro F1", "max", True),
        "label_accuracy": FigureKind("label accuracy", "max", True),
        "nll": FigureKind("NLL", "min"),
        "agreement": FigureKind("agreement", "max", True),
        "kl_teacher": FigureKind("KL", "min"),
    }
    logged = ("map", "f1_micro", "f1_macro", "label_accuracy", "nll")
    beside_teacher = ("agreement", "kl_teacher")
    has_classes = False
    label_description = "K floats of 0 or 1 an example (NaN: not known)"

    def check_labels(self, name: str, labels: Tensor) -> None:
        """Refuses labels that are not floats of 0, 1 or NaN."""
        if labels.dim() != 2 or not labels.is_floating_point():
            raise self.wrong_labels(name, labels)
        if len(bad := ((labels != 0) & (labels != 1) & ~labels.isnan()).nonzero()):
            row, column = bad[0].tolist()
            raise TutelageError(
                f"task=multilabel needs labels of 0, 1 or NaN; label {column} of the {name} example at index {row} is "
                f"{float(labels[row, column])}"
            )

    def logits_shape(self, label: Tensor, outputs: int) -> list[int]:
        """Returns [B, K]."""
        return [len(label), outputs]

    def means(self, logits: Tensor, label: Tensor, teacher: Tensor | None) -> dict[str, Weighted]:
        """Returns label accuracy and NLL over known labels, agreement and KL over all."""
        known = ~label.isnan()
        z, y = logits[known], label[known]
        found: dict[str, Weighted] = {
            "label_accuracy": (((z > 0) == (y > 0.5)).float().mean(), len(z)),
            "nll": (F.binary_cross_entropy_with_logits(z, y), len(z)),
        }
        if not len(z):
            found = {}
        if teacher is not None:
            found["agreement"] = (((logits > 0) == (teacher > 0)).float().mean(), logits.numel())
            q, p = (Bernoulli(logits=z, validate_args=False) for z in (teacher, logits))
            found["kl_teacher"] = (kl_divergence(q, p).mean(), logits.numel())
        return found

    def torchmetrics(self, outputs: int) -> dict[str, Metric]:
        """Returns mean average precision and F1."""
        return {
            "map": MultilabelAveragePrecision(outputs, average="macro", ignore_index=_UNKNOWN),
            "f1_micro": MultilabelF1Score(outputs, average="micro", ignore_index=_UNKNOWN),
            "f1_macro": MultilabelF1Score(outputs, average="macro", ignore_index=_UNKNOWN),
        }

    def rows(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Returns probabilities [B, K] and integers [B, K], −1 where the label is not known."""
        return logits.sigmoid(), label.nan_to_num(_UNKNOWN).long()

    def columns(self, logits: Tensor, names: Sequence[str]) -> dict[str, list[Any]]:
        """Returns ``prediction``, the labels above one half with spaces between, and the probability of each label."""
        shares = logits.sigmoid()
        chosen = [" ".join(name for name, one in zip(names, row, strict=True) if one > 0.5) for row in shares.tolist()]
        return {"prediction": chosen, **{f"p({name})": shares[:, place].tolist() for place, name in enumerate(names)}}

    def figures(self, own: Saved, teacher: Saved | None = None) -> dict[str, float]:
        """Returns :func:`tutelage.tasks.metrics.multilabel.figures`."""
        return multilabel.figures(own, teacher)  # type: ignore[arg-type]

    def baseline(self, own: Saved) -> tuple[float, str] | None:
        """Returns the mean average precision of answers in no order: the mean share of positive examples."""
        if self.headline != "map" or not isinstance(own, SavedPredictions):
            return None
        label = own.label[:, np.nansum(own.label, 0) > 0]
        return float(np.nanmean(label, 0).mean()), "ordering the examples at random"
