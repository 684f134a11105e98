"""Teacher-free distillation by regularisation (Yuan et al. 2020)."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.logit.soft_target import soft_target
from tutelage.losses.logits import checked_temperature, column, constant, rows
from tutelage.losses.precision import in_float32


class TfKDReg(nn.Module):
    """Soft targets of a virtual teacher: probability a for the label, the rest uniform over the other classes.

    ``T² · mean_b KL(q‖p)``, ``p = softmax(z_s / T)``, ``q`` the distribution (a on the label, (1 − a)/(C − 1) on each
    other class) with its logarithms as logits, softened at T. T² is inside. It is the paper's KL term; its (1 − α)·CE
    is a separate term. The published code differs: it softens by softmax(probability / T), which at T = 20 is nearly
    uniform, leaves the student at T = 1, and averages over B·C.

    Args:
        correct: a, in (0, 1].
        temperature: T.

    Shape:
        student [B, C], C ≥ 2; label [B]; a scalar.

    Raises:
        TutelageError: a is not in (0, 1], T is not finite or below 1e-3, or a shape is wrong.

    Published: a = 0.99, T = 20; the weight α, with 1 − α of cross-entropy, is tuned per network.

    Yuan et al., "Revisiting Knowledge Distillation via Label Smoothing Regularization", 2020, arXiv:1909.11723.
    """

    over_classes = True
    correct: Tensor
    temperature: Tensor

    def __init__(self, correct: float = 0.99, temperature: float = 20.0):
        super().__init__()
        least = torch.finfo(torch.float32).tiny
        self.register_buffer("correct", constant(correct, "TfKDReg.correct", least, 1.0), persistent=False)
        self.register_buffer("temperature", checked_temperature(temperature, "TfKDReg"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        label = column(label, student, "TfKDReg")
        student = rows(student, "TfKDReg")
        classes = student.shape[1]
        if classes < 2:
            raise TutelageError("TfKDReg: expected 2 classes or more, found 1")
        elsewhere = ((1 - self.correct) / (classes - 1)).log().to(student.dtype)
        virtual = elsewhere.expand_as(student).scatter(
            1, label, self.correct.log().to(student.dtype).expand(label.shape)
        )
        return soft_target(student, virtual, self.temperature)
