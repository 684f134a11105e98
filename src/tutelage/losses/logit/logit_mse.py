"""Regression of logits (Ba & Caruana 2014)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.losses.logits import floored, paired_rows
from tutelage.losses.precision import in_float32


class LogitMSE(nn.Module):
    """Matches the student's logits to the teacher's by squared error.

    ``mean_b Σ_c (z_s − z_t)²``: summed over the classes (not divided by C, unlike ``torch.nn.MSELoss``), averaged over
    rows; Ba & Caruana have another factor of ½. There is no T, hence no T². As T grows,
    :class:`~tutelage.losses.logit.soft_target.SoftTarget` tends to 1/(2C) of this loss of the centred logits. Classes
    masked (−inf) in both contribute 0; a class masked in only one makes the loss infinite.

    Shape:
        student, teacher [B, C]; a scalar.

    Ba & Caruana, "Do Deep Nets Really Need to be Deep?", 2014, arXiv:1312.6184. Kim et al., "Comparing Kullback-Leibler
    Divergence and Mean Squared Error Loss in Knowledge Distillation", 2021, arXiv:2105.08919.
    """

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "LogitMSE")
        lowest = torch.finfo(student.dtype).min  # −inf − (−inf) would be NaN; the square of this is inf
        student, teacher = floored(student, lowest), floored(teacher, lowest)
        return F.mse_loss(student, teacher, reduction="sum") / len(student)
