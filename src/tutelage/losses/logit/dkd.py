"""Decoupled knowledge distillation (Zhao et al. 2022)."""

from torch import Tensor, nn

from tutelage.losses.logits import (
    checked_temperature,
    column,
    constant,
    kl,
    label_and_rest,
    log_softmax,
    paired_rows,
)
from tutelage.losses.precision import in_float32


class DKD(nn.Module):
    """Soft targets in two parts: the target class against the rest (TCKD), and the non-target classes (NCKD).

    ``α · T² · KL(b_t‖b_s) + β · T² · KL(q̂‖p̂)``, averaged over rows, T² inside. ``b = [p_y, 1 − p_y]`` of the
    distributions softened at T; ``q̂, p̂`` are those over the other classes alone. With α = 1 and, row by row,
    β = 1 − q_y it is the soft target. The label is excluded exactly, after the division by T; mdistiller subtracts 1000
    from its softened logit instead, and takes logarithms of 1 − p_y, which can be 0.

    Args:
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: T.

    Shape:
        student, teacher [B, C]; label [B]; a scalar.

    Raises:
        TutelageError: a weight is negative or not finite, T is not finite or below 1e-3, or a shape is wrong.

    Published weight: α = 1, β = 8 (2 or 6 for some pairs), T = 4, cross-entropy at 1; the loss is warmed up linearly
    over the first 20 epochs (:func:`~tutelage.losses.schedules.warmup`). ImageNet: β = 0.5, T = 1, 1 epoch.

    Zhao et al., "Decoupled Knowledge Distillation", 2022, arXiv:2203.08679.
    """

    over_classes = True
    alpha: Tensor
    beta: Tensor
    temperature: Tensor

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0):
        super().__init__()
        self.register_buffer("alpha", constant(alpha, "DKD.alpha", low=0.0), persistent=False)
        self.register_buffer("beta", constant(beta, "DKD.beta", low=0.0), persistent=False)
        self.register_buffer("temperature", checked_temperature(temperature, "DKD"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        of_label, of_others = self.parts(student, teacher, label)
        return self.alpha * of_label + self.beta * of_others

    @in_float32
    def parts(self, student: Tensor, teacher: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Returns TCKD and NCKD, unweighted, T² inside, each a scalar."""
        label = column(label, student, "DKD")
        student, teacher = paired_rows(student, teacher, "DKD")
        p_binary, p_others = label_and_rest(log_softmax(student, self.temperature), label)
        q_binary, q_others = label_and_rest(log_softmax(teacher, self.temperature), label)
        squared = self.temperature**2
        return squared * kl(q_binary, p_binary).mean(), squared * kl(q_others, p_others).mean()
