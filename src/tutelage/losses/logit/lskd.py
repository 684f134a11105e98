"""Logit standardisation (Sun et al. 2024)."""

import torch
from torch import Tensor, nn

from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.losses.logits import check_relations, paired_rows
from tutelage.losses.precision import in_float32


class Standardised(nn.Module):
    """Wraps a loss of logits so that it receives standardised logits: ``(z − mean) / (std + 1e-7)`` by rows, of both.

    The student then matches the teacher's logits up to mean and scale. std has C − 1 in the denominator, as in the
    published code. Masked classes (−inf) stay masked and count in neither. A row of equal logits becomes 0, with
    gradient 0.

    Args:
        loss: takes ``student``, ``teacher`` and any further arguments.

    Shape:
        student, teacher [B, C]; further arguments as in ``loss``.

    Raises:
        TutelageError: the shapes differ, or there are fewer than three classes.

    Sun et al., "Logit Standardization in Knowledge Distillation", 2024, arXiv:2403.01427.
    """

    over_classes = True

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, **others: Tensor) -> Tensor:
        """Returns the wrapped loss, a scalar."""
        student, teacher = paired_rows(student, teacher, type(self).__name__)
        check_relations(student, type(self).__name__)
        result: Tensor = self.loss(student=standardised(student), teacher=standardised(teacher), **others)
        return result


class LSKD(Standardised):
    """:class:`Standardised` soft targets at T = 2, the published form.

    Args:
        temperature: T of the standardised logits.

    Published weight: 9, with 0.1 of cross-entropy (CIFAR-100).
    """

    def __init__(self, temperature: float = 2.0):
        super().__init__(SoftTarget(temperature))


def standardised(logits: Tensor) -> Tensor:
    """Returns ``(z − mean) / (std + 1e-7)`` by rows over the classes that are not masked (−inf), [B, C]."""
    masked = logits == -torch.inf
    count = (~masked).sum(1, keepdim=True)
    z = logits.masked_fill(masked, 0.0)
    z = (z - z.sum(1, keepdim=True) / count.clamp(min=1)).masked_fill(masked, 0.0)
    variance = z.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)
    flat = variance == 0  # where the root has no derivative
    std = variance.masked_fill(flat, 1.0).sqrt()
    return (z / (std + 1e-7)).masked_fill(flat, 0.0).masked_fill(masked, -torch.inf)
