"""Figures of one class against all others."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import BinaryF1Score


class F1OfClass(BinaryF1Score):
    """F1 of one class: 2·TP / (2·TP + FP + FN), the most probable class being the choice.

    Args:
        number: of the class.
        **kwargs: arguments of torchmetrics' ``BinaryF1Score``.
    """

    def __init__(self, number: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.number = number

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds predictions [n, C] and labels [n]."""
        super().update((preds.argmax(-1) == self.number).to(torch.int64), (target == self.number).to(torch.int64))
