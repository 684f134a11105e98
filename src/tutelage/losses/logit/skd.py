"""Spherical knowledge distillation (Guo et al. 2020)."""

import torch
from torch import Tensor, nn

from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.losses.logits import check_relations, constant, paired_rows
from tutelage.losses.precision import in_float32


class SKD(nn.Module):
    """Soft targets of logits that were projected to a sphere: of both, mean 0 and the same length.

    ``T² · KL(q̂‖p̂)``, averaged over rows, T² inside, with ``q̂ = softmax(m · (z − mean) / √(var + 1e-7) / T)`` of the
    teacher and p̂ of the student; mean and variance (C in the denominator) by rows. Masked classes (−inf) stay masked
    and count in neither. :class:`~tutelage.losses.logit.lskd.LSKD` at the temperature T / m differs by a factor m² and
    by C − 1 in the denominator alone.

    Other papers are called SKD, too; this is Spherical Knowledge Distillation. In the authors' code cross-entropy reads
    the projected logits as well; here it reads the student's own, so that alpha = 0 stays the control.

    Args:
        multiplier: m, the length of both in units of √C.
        temperature: T.

    Shape:
        student, teacher [B, C]; a scalar.

    Raises:
        TutelageError: an argument is out of range, the shapes differ, or there are fewer than three classes.

    Published weight: 0.9 with 0.1 of cross-entropy (PaddleClas), m = 2, T = 4 (the authors, ImageNet).

    Guo et al., "Reducing the Teacher-Student Gap via Spherical Knowledge Distillation", 2020, arXiv:2010.07485.
    """

    over_classes = True
    multiplier: Tensor

    def __init__(self, multiplier: float = 2.0, temperature: float = 4.0):
        super().__init__()
        self.register_buffer("multiplier", constant(multiplier, "SKD.multiplier", low=1e-3), persistent=False)
        self.soft = SoftTarget(temperature)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "SKD")
        check_relations(student, "SKD")
        found: Tensor = self.soft(self.multiplier * _projected(student), self.multiplier * _projected(teacher))
        return found


def _projected(logits: Tensor) -> Tensor:
    """Returns ``(z − mean) / √(var + 1e-7)`` by rows over the classes that are not masked (−inf), [B, C]."""
    masked = logits == -torch.inf
    count = (~masked).sum(1, keepdim=True).clamp(min=1)
    z = logits.masked_fill(masked, 0.0)
    z = (z - z.sum(1, keepdim=True) / count).masked_fill(masked, 0.0)
    return (z / (z.square().sum(1, keepdim=True) / count + 1e-7).sqrt()).masked_fill(masked, -torch.inf)
