"""Dynamic temperatures (Wei & Bai 2024)."""

from torch import Tensor, nn

from tutelage.losses.logit.soft_target import soft_target
from tutelage.losses.logits import checked_temperature, constant, kl, log_softmax, paired_rows
from tutelage.losses.precision import in_float32

LEAST_MAXIMUM = 1e-2


class DTKD(nn.Module):
    """Soft targets with a temperature for each row and network, higher for the sharper one, plus plain soft targets.

    ``α · mean_b T_s T_t KL(softmax(z_t / T_t) ‖ softmax(z_s / T_s)) + β · T² · mean_b KL(q‖p)``, with
    ``T_s = 2T · m_s / (m_s + m_t)``, ``T_t = 2T · m_t / (m_s + m_t)``, m the row's greatest logit, so that
    ``T_s + T_t = 2T``; q and p at the common T. T² and T_s T_t are inside. The gradient flows through T_s and T_t, as
    in the published code.

    m is clamped to at least 0.01: in the published code a row whose greatest logit is not positive has a negative or
    infinite temperature. With the clamp both temperatures lie within 0 and 2T, and both are T if no logit is above
    0.01. m, hence the loss, changes if a constant is added to all logits.

    Args:
        alpha: weight of the part with temperatures by row.
        beta: weight of the plain soft targets.
        temperature: T.

    Shape:
        student, teacher [B, C]; a scalar.

    Raises:
        TutelageError: a weight is negative or not finite, T is not finite or below 1e-3, or the shapes differ.

    Published weight: α = 3, β = 1, T = 4, cross-entropy at 1; both parts are warmed up linearly over the first 20
    epochs (:func:`~tutelage.losses.schedules.warmup`).

    Wei & Bai, "Dynamic Temperature Knowledge Distillation", 2024, arXiv:2404.12711.
    """

    over_classes = True
    alpha: Tensor
    beta: Tensor
    temperature: Tensor

    def __init__(self, alpha: float = 3.0, beta: float = 1.0, temperature: float = 4.0):
        super().__init__()
        self.register_buffer("alpha", constant(alpha, "DTKD.alpha", low=0.0), persistent=False)
        self.register_buffer("beta", constant(beta, "DTKD.beta", low=0.0), persistent=False)
        self.register_buffer("temperature", checked_temperature(temperature, "DTKD"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "DTKD")
        of_student, of_teacher = self.temperatures(student, teacher)
        by_row = kl(log_softmax(teacher, of_teacher), log_softmax(student, of_student))
        dynamic = (by_row * (of_student * of_teacher).squeeze(1)).mean()
        return self.alpha * dynamic + self.beta * soft_target(student, teacher, self.temperature)

    def temperatures(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Returns T_s and T_t of each row, [B, 1] each."""
        highest_student = student.amax(1, keepdim=True).clamp(min=LEAST_MAXIMUM)
        highest_teacher = teacher.amax(1, keepdim=True).clamp(min=LEAST_MAXIMUM)
        double = 2 * self.temperature / (highest_student + highest_teacher)
        return double * highest_student, double * highest_teacher
