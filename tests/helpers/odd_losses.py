"""Losses that a user may write, most with a mistake."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Detached(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return F.mse_loss(student.detach(), teacher)


class Disagreement(nn.Module):
    """A share of examples, which has no gradient."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student.argmax(-1) != teacher.argmax(-1)).float().mean()


class ByNumPy(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return torch.tensor(np.square(student.detach().numpy() - teacher.numpy()).mean())


class AdapterOnly(nn.Module):
    """Trains what predicts the teacher from the student, not the student."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(10, 10)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return F.mse_loss(self.map(student.detach()), teacher)


class Late(nn.Module):
    """Begins after a warm-up of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.on = False

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        self.on = epoch > 0

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return F.mse_loss(student, teacher) if self.on else torch.zeros(())
