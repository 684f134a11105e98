"""Refined logit distillation (Sun et al. 2024)."""

import torch
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


class RLD(nn.Module):
    """Soft targets without what a mistaken teacher says against the label.

    ``α · T_c² · KL(b_t‖b_s) + β · T² · KL(q̂‖p̂)``, averaged over rows, T² inside. Sample confidence:
    ``b_t = [max q, 1 − max q]`` of the teacher and ``b_s = [p_y, 1 − p_y]`` of the student, softened at T_c: the
    label's probability should be what the teacher gives to its own first class. Masked correlation: q̂ and p̂ are the
    distributions, softened at T, over the classes whose teacher's logit is below the label's; the label itself and
    whatever the teacher prefers to it are left out. A row in which no class is left adds 0.

    Args:
        alpha: weight of sample confidence.
        beta: weight of masked correlation.
        temperature: T.
        confidence_temperature: T_c.

    Shape:
        student, teacher [B, C]; label [B]; a scalar.

    Raises:
        TutelageError: a weight is negative or not finite, a temperature is not finite or below 1e-3, or a shape is
            wrong.

    Published weight: α = 1, β = 8 (the authors' default; 2 to 8 by pair), T = 4, T_c = 1, cross-entropy at 1, linear
    warm-up over the first 20 epochs (:func:`~tutelage.losses.schedules.warmup`).

    Sun et al., "Knowledge Distillation with Refined Logits", 2024, arXiv:2408.07703.
    """

    over_classes = True
    alpha: Tensor
    beta: Tensor
    temperature: Tensor
    confidence_temperature: Tensor

    def __init__(
        self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, confidence_temperature: float = 1.0
    ):
        super().__init__()
        self.register_buffer("alpha", constant(alpha, "RLD.alpha", low=0.0), persistent=False)
        self.register_buffer("beta", constant(beta, "RLD.beta", low=0.0), persistent=False)
        self.register_buffer("temperature", checked_temperature(temperature, "RLD"), persistent=False)
        confidence = constant(confidence_temperature, "RLD.confidence_temperature", low=1e-3)
        self.register_buffer("confidence_temperature", confidence, persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        confidence, correlation = self.parts(student, teacher, label)
        return self.alpha * confidence + self.beta * correlation

    @in_float32
    def parts(self, student: Tensor, teacher: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Returns sample confidence and masked correlation, unweighted, T² inside, each a scalar."""
        label = column(label, student, "RLD")
        student, teacher = paired_rows(student, teacher, "RLD")
        first = teacher.argmax(1, keepdim=True)
        p_binary, _ = label_and_rest(log_softmax(student, self.confidence_temperature), label)
        q_binary, _ = label_and_rest(log_softmax(teacher, self.confidence_temperature), first)
        preferred = teacher >= teacher.gather(1, label)
        p_kept, q_kept = (
            log_softmax(logits.masked_fill(preferred, -torch.inf), self.temperature) for logits in (student, teacher)
        )
        confidence = self.confidence_temperature**2 * kl(q_binary, p_binary).mean()
        return confidence, self.temperature**2 * kl(q_kept, p_kept).mean()
