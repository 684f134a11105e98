"""Normalised knowledge distillation (Yang et al. 2023)."""

from torch import Tensor, nn

from tutelage.losses.logits import LOWEST, checked_temperature, column, constant, log_softmax, paired_rows
from tutelage.losses.precision import in_float32


class NKD(nn.Module):
    """Cross-entropy of the label, weighted by the teacher's probability of it, and of the normalised other classes.

    ``−mean_b q_y log p_y − γ · T² · mean_b Σ_{i≠y} q̂_i log p̂_i``. The first term is at T = 1 and its weight q_y, the
    teacher's probability of the label, is detached; ``q̂, p̂`` are softened at T and normalised without the label. T² is
    inside. These are cross-entropies, not divergences: the second has its minimum, not 0, at p̂ = q̂, and the first
    decreases until p_y is 1.

    Args:
        gamma: weight of the other classes.
        temperature: T.

    Shape:
        student, teacher [B, C]; label [B]; a scalar.

    Raises:
        TutelageError: γ is negative or not finite, T is not finite or below 1e-3, or a shape is wrong.

    Published weight: cross-entropy and this loss at 1; γ = 1.5, T = 1 for ImageNet, γ = 3.5, T = 3 for CIFAR-100 (the
    authors' files).

    Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation", 2023, arXiv:2303.13005.
    """

    over_classes = True
    gamma: Tensor
    temperature: Tensor

    def __init__(self, gamma: float = 1.5, temperature: float = 1.0):
        super().__init__()
        self.register_buffer("gamma", constant(gamma, "NKD.gamma", low=0.0), persistent=False)
        self.register_buffer("temperature", checked_temperature(temperature, "NKD"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        label = column(label, student, "NKD")
        student, teacher = paired_rows(student, teacher, "NKD")
        weight = log_softmax(teacher).gather(1, label).exp().detach()
        of_label = -(weight * log_softmax(student).gather(1, label)).mean()
        p_others = self._others(student, label)
        q_others = self._others(teacher, label).exp()
        of_others = -(q_others * p_others).sum(1).mean()
        return of_label + self.gamma * self.temperature**2 * of_others

    def _others(self, logits: Tensor, label: Tensor) -> Tensor:
        """Returns log p̂ [B, C]; the label's entry is about ``LOWEST``, its probability 0."""
        return log_softmax(logits, self.temperature).scatter(1, label, LOWEST).log_softmax(1)
