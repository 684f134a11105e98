"""One class for each pixel of an image."""

from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassJaccardIndex

from tutelage.tasks.dense import SHARED, Dense
from tutelage.tasks.figure_kinds import FigureKind
from tutelage.tasks.metrics import dense
from tutelage.tasks.predictions import Saved, SavedTotals


class Segmentation(Dense):
    """Semantic segmentation: logits [B, H, W, C], labels [B, H, W].

    A network with its channels first gives ``outputs`` a view: see docs/tasks.md. Figures: mean intersection over union
    (headline; over classes that are there or predicted), pixel accuracy, NLL of a pixel, and agreement with and KL to
    the teacher. Arguments as of :class:`~tutelage.tasks.base.Task`.
    """

    name = "segmentation"
    usual = "miou"
    axes = 3
    logged = ("miou", "accuracy", "nll")
    kinds: ClassVar = {
        "miou": FigureKind("mIoU", "max", True),
        "accuracy": FigureKind("pixel accuracy", "max", True),
        **SHARED,
    }
    label_description = "an integer for each pixel [H, W], -100 where none counts"

    def torchmetrics(self, outputs: int) -> dict[str, Metric]:
        """Returns the mean intersection over union."""
        return {"miou": MulticlassJaccardIndex(outputs, average="macro")}

    def store(self, logits: Tensor, label: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        """Returns totals, and for each class how many pixels are it, are predicted it, and both."""
        classes, known = logits.shape[-1], label >= 0
        choice = logits.argmax(-1)

        def count(values: Tensor, where: Tensor) -> Tensor:
            rows = torch.arange(len(values), device=values.device).view(-1, 1, 1).expand_as(values)
            place = (rows * classes + values)[where]
            return torch.bincount(place, minlength=len(values) * classes).view(-1, classes).int()

        return {
            **super().store(logits, label, teacher),
            "both": count(choice, known & (choice == label)),
            "predicted": count(choice, known),
            "true": count(label.clamp(min=0), known),
        }

    def baseline(self, own: Saved) -> tuple[float, str] | None:
        """Returns the mean IoU or accuracy of always giving the most frequent class."""
        assert isinstance(own, SavedTotals)
        pixels = own.fields["true"].sum(0)
        share = float(pixels.max() / max(1, pixels.sum()))
        found = {"miou": share / max(1, int((pixels > 0).sum())), "accuracy": share}.get(self.headline)
        return super().baseline(own) if found is None else (found, "always giving the most frequent class")

    def further(self, own: SavedTotals) -> dict[str, float]:
        """Returns the mean intersection over union."""
        found = dense.mean_iou(*(own.fields[name] for name in ("both", "predicted", "true")))
        return {} if found is None else {"miou": found}
