"""Weighted soft labels (Zhou et al. 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.losses.logits import LOWEST, checked_temperature, column, log_softmax, paired_rows
from tutelage.losses.precision import in_float32


class WSLD(nn.Module):
    """Soft targets weighted by example, less where the student already fits the label better than the teacher does.

    ``T² · mean_b (1 − exp(−CE_s / CE_t)) · H(q, p)``, ``H(q, p) = −Σ_c q log p`` softened at T, CE the cross-entropy
    with the label at T = 1. The weights are detached, T² is inside. H is a cross-entropy: its minimum, not 0, is at
    p = q. 1e-7 is added to CE_t, as in the published code.

    Args:
        temperature: T.

    Shape:
        student, teacher [B, C]; label [B]; a scalar.

    Raises:
        TutelageError: T is not finite or below 1e-3, or a shape is wrong.

    Published weight, cross-entropy at 1: 2.5, T = 2 for ImageNet (the authors); 2.25, T = 4 for CIFAR-100 (cls_KD).

    Zhou et al., "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective", 2021,
    arXiv:2102.00650.
    """

    over_classes = True
    temperature: Tensor

    def __init__(self, temperature: float = 2.0):
        super().__init__()
        self.register_buffer("temperature", checked_temperature(temperature, "WSLD"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        label = column(label, student, "WSLD")
        student, teacher = paired_rows(student, teacher, "WSLD")
        q = log_softmax(teacher, self.temperature).exp()
        soft = -(q * log_softmax(student, self.temperature)).sum(1)
        ratio = _cross_entropy(student.detach(), label) / (_cross_entropy(teacher.detach(), label) + 1e-7)
        return self.temperature**2 * (-torch.expm1(-ratio) * soft).mean()


def _cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Returns −log p_y, [B], as log(1 + Σ_{i≠y} exp(z_i − z_y)), which is accurate in float32 even if p_y is near 1."""
    logits = logits.clamp(min=LOWEST)
    others = logits.scatter(1, label, LOWEST).logsumexp(1)
    return F.softplus(others - logits.gather(1, label).squeeze(1))
