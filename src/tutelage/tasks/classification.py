"""One of several classes for each example."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tutelage.tasks.base import Task, Weighted
from tutelage.tasks.figure_kinds import CLASSIFICATION
from tutelage.tasks.metrics import classification
from tutelage.tasks.predictions import Saved


class Classification(Task):
    """Logits [B, C], labels [B] of integers in [0, C).

    Figures: accuracy (headline), errors, NLL, expected calibration error, and agreement with and KL to the teacher
    (:mod:`tutelage.tasks.metrics.classification`). Arguments as of :class:`~tutelage.tasks.base.Task`.
    """

    name = CLASSIFICATION.task
    usual = CLASSIFICATION.headline
    kinds = CLASSIFICATION.kinds
    logged = ("accuracy", "nll")
    beside_teacher = ("agreement", "kl_teacher")
    label_description = "one integer an example, the number of its class"

    def check_labels(self, name: str, labels: Tensor) -> None:
        """Refuses labels that are not one class an example."""
        if labels.dim() != 1 or labels.is_floating_point():
            raise self.wrong_labels(name, labels)

    def logits_shape(self, label: Tensor, outputs: int) -> list[int]:
        """Returns [B, C]."""
        return [len(label), outputs]

    def means(self, logits: Tensor, label: Tensor, teacher: Tensor | None) -> dict[str, Weighted]:
        """Returns accuracy, NLL, agreement and KL, over examples."""
        count = len(label)
        found: dict[str, Weighted] = {
            "accuracy": ((logits.argmax(-1) == label).float().mean(), count),
            "nll": (F.cross_entropy(logits, label), count),
        }
        if teacher is not None:
            p, q = logits.log_softmax(-1), teacher.log_softmax(-1)
            found["agreement"] = ((logits.argmax(-1) == teacher.argmax(-1)).float().mean(), count)
            found["kl_teacher"] = (F.kl_div(p, q, log_target=True, reduction="batchmean"), count)
        return found

    def rows(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Returns probabilities [B, C] and labels [B]."""
        return logits.softmax(-1), label

    def columns(self, logits: Tensor, names: Sequence[str]) -> dict[str, list[Any]]:
        """Returns ``prediction``, the most probable class, its ``probability``, and that of each class."""
        shares = logits.softmax(-1)
        most, choice = shares.max(-1)
        found = {"prediction": [names[number] for number in choice.tolist()], "probability": most.tolist()}
        return {**found, **{f"p({name})": shares[:, place].tolist() for place, name in enumerate(names)}}

    def figures(self, own: Saved, teacher: Saved | None = None) -> dict[str, float]:
        """Returns :func:`tutelage.tasks.metrics.classification.figures`."""
        return classification.figures(own, teacher)  # type: ignore[arg-type]

    def figures_on_train(self, own: Saved, teacher: Saved | None = None) -> dict[str, float]:
        """Returns the figures; a teacher is compared on the examples that both have."""
        return classification.figures_of_own(own, teacher)  # type: ignore[arg-type]
