"""Correlation of predictions (Huang et al. 2022)."""

import math

from torch import Tensor, nn

from tutelage.losses.logits import check_relations, checked_temperature, constant, log_softmax, paired_rows
from tutelage.losses.precision import in_float32

_CONSTANT = 1e-6  # probabilities whose relative spread is below this count as equal: the rest is rounding noise


class DIST(nn.Module):
    """Maximises the correlation of the student's and the teacher's probabilities, by row and by class over the batch.

    ``T² · [β (1 − mean_b r(q_b, p_b)) + γ (1 − mean_c r(q_·c, p_·c))]`` of the distributions softened at T, r Pearson's
    correlation, T² inside. A row or class in which one side is constant has no correlation: it counts as r = 0, with
    gradient 0 (so does a class that is masked in both, and every class of a batch of one row). The published code adds
    1e-8 to the product of norms instead, which biases r towards 0 for rare classes.

    Args:
        beta: weight of the rows.
        gamma: weight of the classes.
        temperature: T (the paper's τ).

    Shape:
        student, teacher [B, C]; a scalar.

    Raises:
        TutelageError: a weight is negative or not finite, T is not finite or below 1e-3, the shapes differ, or β > 0
            with fewer than three classes.

    Published weight: 2 with cross-entropy at 1, β = γ = 1; T = 4 for CIFAR-100, T = 1 for ImageNet.

    Huang et al., "Knowledge Distillation from A Stronger Teacher", 2022, arXiv:2205.10536.
    """

    over_classes = True
    beta: Tensor
    gamma: Tensor
    temperature: Tensor

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0):
        super().__init__()
        self.compares_rows = float(constant(beta, "DIST.beta", low=0.0)) > 0
        self.register_buffer("beta", constant(beta, "DIST.beta", low=0.0), persistent=False)
        self.register_buffer("gamma", constant(gamma, "DIST.gamma", low=0.0), persistent=False)
        self.register_buffer("temperature", checked_temperature(temperature, "DIST"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "DIST")
        if self.compares_rows:
            check_relations(student, "DIST with beta > 0")
        log_p, log_q = log_softmax(student, self.temperature), log_softmax(teacher, self.temperature)
        rows = 1 - _pearson(log_p.exp(), log_q.exp(), 1).mean()
        classes = 1 - _pearson(_of_greatest(log_p), _of_greatest(log_q), 0).mean()
        return self.temperature**2 * (self.beta * rows + self.gamma * classes)


def _of_greatest(log_p: Tensor) -> Tensor:
    """Returns each class's probabilities over their maximum, which keeps correlations and never underflows."""
    return (log_p - log_p.detach().amax(0)).exp()


def _pearson(p: Tensor, q: Tensor, dim: int) -> Tensor:
    (p, p_norm, p_constant), (q, q_norm, q_constant) = _centred(p, dim), _centred(q, dim)
    return (p * q).sum(dim) / (p_norm * q_norm).masked_fill(p_constant | q_constant, math.inf)


def _centred(x: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns ``x`` centred along ``dim``, its norm, and whether it is rounding noise."""
    mean = x.mean(dim, keepdim=True)
    centred = x - mean
    norm = centred.norm(dim=dim)
    return centred, norm, norm <= _CONSTANT * math.sqrt(x.shape[dim]) * mean.squeeze(dim)
