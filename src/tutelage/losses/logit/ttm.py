"""Transformed teacher matching (Zheng & Yang 2024)."""

from torch import Tensor, nn

from tutelage.losses.logits import checked_temperature, kl, log_softmax, paired_rows
from tutelage.losses.precision import in_float32


class TTM(nn.Module):
    """Soft targets with a temperature for the teacher only.

    ``mean_b KL(q‖p)``: ``q = softmax(z_t / T)``, that is q₁^ℓ / Z with ℓ = 1/T and ``Z = Σ_c q₁^ℓ``;
    ``p = softmax(z_s)`` at T = 1. No factor T² is needed, as the student's gradient is not scaled by T.

    Args:
        temperature: T.

    Shape:
        student, teacher [B, C]; a scalar.

    Raises:
        TutelageError: T is not finite or below 1e-3, or the shapes differ.

    Published weight: 45 with cross-entropy at 1, T = 10 (the authors' example, VGG13 → VGG8, CIFAR-100); others for
    other pairs.

    Zheng & Yang, "Knowledge Distillation Based on Transformed Teacher Matching", 2024, arXiv:2402.11148.
    """

    over_classes = True
    temperature: Tensor

    def __init__(self, temperature: float = 10.0):
        super().__init__()
        self.register_buffer("temperature", checked_temperature(temperature, type(self).__name__), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, type(self).__name__)
        divergence = kl(log_softmax(teacher, self.temperature), log_softmax(student))
        return (self.weight(teacher) * divergence).mean()

    def weight(self, teacher: Tensor) -> Tensor | float:
        """Returns the weight of every row: 1."""
        return 1.0


class WTTM(TTM):
    """:class:`TTM` with each row weighted by its Z, which grows with the teacher's uncertainty.

    ``mean_b Z · KL(q‖p)``; Z ranges from 1 to C^(1 − 1/T), so the term's weight differs from TTM's.

    Published weight: 4 at T = 5, with cross-entropy at 1 and CRD at 0.8 (the authors' example, VGG13 → VGG8,
    CIFAR-100); none without CRD.
    """

    def weight(self, teacher: Tensor) -> Tensor:
        """Returns the weight of each row: Z, [B]."""
        return (log_softmax(teacher) / self.temperature).logsumexp(1).exp()
