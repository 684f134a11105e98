"""Adaptive Kullback-Leibler (Wu et al. 2024)."""

import torch
from torch import Tensor, nn

from tutelage.losses.logits import checked_temperature, constant, kl, log_softmax, paired_rows
from tutelage.losses.precision import in_float32


class AKL(nn.Module):
    """Weights forward and reverse KL in each row by how much teacher and student differ in the head and in the tail.

    ``T² · mean [h·KL(q‖p) + (1 − h)·KL(p‖q)]``, ``h = s₁/(s₁ + s₂)``, ``s₁ = Σ |q − p|`` over the head and s₂ over the
    tail, both detached. The head holds the teacher's most probable classes while their cumulative probability is at
    most μ, at least one; the class that crosses μ belongs to the tail, as in the authors' code (in the paper to the
    head). If q = p, h is ½ and the loss 0. Averaged over rows, T² inside.

    Args:
        mu: μ, from 0 to 1.
        temperature: T.

    Shape:
        student, teacher [B, C]; a scalar. For tokens [B, L, C], ``where`` of the term selects rows.

    Raises:
        TutelageError: μ outside [0, 1], T not finite or below 1e-3, or shapes that differ.

    Published weight: 1, μ 0.5, T = 1 (the authors' code).

    Wu et al., "Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language Models", 2024,
    arXiv:2404.02657.
    """

    over_classes = True
    mu: Tensor
    temperature: Tensor

    def __init__(self, mu: float = 0.5, temperature: float = 1.0):
        super().__init__()
        self.register_buffer("mu", constant(mu, "AKL.mu", 0.0, 1.0), persistent=False)
        self.register_buffer("temperature", checked_temperature(temperature, "AKL"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "AKL")
        log_p, log_q = log_softmax(student, self.temperature), log_softmax(teacher, self.temperature)
        head = self.head_shares(log_q.detach().exp(), log_p.detach().exp())
        return self.temperature**2 * (head * kl(log_q, log_p) + (1 - head) * kl(log_p, log_q)).mean()

    def head_shares(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Returns h of each row, [B], for probabilities [B, C]."""
        q, order = teacher.sort(1, descending=True)
        gap = (q - student.gather(1, order)).abs()
        first = torch.arange(q.shape[1], device=q.device) == 0
        in_head = ((q.cumsum(1) <= self.mu) | first).to(q.dtype)
        total = gap.sum(1)
        return torch.where(total > 0, (gap * in_head).sum(1) / total, 0.5)
