"""Reverse Kullback-Leibler divergence."""

from torch import Tensor, nn

from tutelage.losses.logits import checked_temperature, kl, log_softmax, paired_rows
from tutelage.losses.precision import in_float32


class ReverseKL(nn.Module):
    """Matches the student's distribution to the teacher's by the reverse KL, which is mode-seeking.

    ``T² · mean KL(p‖q)``, ``p = softmax(z_s / T)``, ``q = softmax(z_t / T)``: summed over classes, averaged over rows,
    T² inside. :class:`~tutelage.losses.logit.soft_target.SoftTarget`, KL(q‖p), covers all modes of the teacher instead.
    A class that only the teacher masks (−inf) contributes about 1e30 times the student's probability.

    Args:
        temperature: T.

    Shape:
        student, teacher [B, C]; a scalar. For tokens [B, L, C], ``where`` of the term selects rows.

    Raises:
        TutelageError: T is not finite or below 1e-3, or the shapes differ.

    Published weight: 1, T = 1 (the regularisation of MiniLLM).

    Gu et al., "MiniLLM: Knowledge Distillation of Large Language Models", 2024, arXiv:2306.08543.
    """

    over_classes = True
    temperature: Tensor

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.register_buffer("temperature", checked_temperature(temperature, "ReverseKL"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "ReverseKL")
        log_p, log_q = log_softmax(student, self.temperature), log_softmax(teacher, self.temperature)
        return self.temperature**2 * kl(log_p, log_q).mean()
