"""Probabilistic knowledge transfer (Passalis & Tefas 2018)."""

import torch
from torch import Tensor

from tutelage.losses.base import Loss
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.sp import flat_rows, unit

EPSILON = 1e-7  # as in RepDistiller, which adds it inside the logarithm instead


def neighbours(rows: Tensor) -> Tensor:
    """Returns the row-stochastic P [B, B], P_ij ∝ (cos(x_i, x_j) + 1)/2 + ε: the probability of j as neighbour of i."""
    directions = unit(rows)
    near = ((directions @ directions.T).clamp(-1, 1) + 1) / 2 + EPSILON
    return near / near.sum(1, keepdim=True)


def divergence(target: Tensor, predicted: Tensor) -> Tensor:
    """Returns ``target · log(target/predicted) − target + predicted``, elementwise, ≥ 0.

    Summed over a distribution it is the KL, but each entry is of second order in the difference. The entries of the
    plain form are of first order and cancel, in float32 down to rounding errors once the student is close.
    """
    change = (predicted - target) / target
    close = change.abs() < 0.5
    log = torch.where(close, torch.log1p(change.where(close, 0)), predicted.log() - target.log())
    return target * (change - log)


class PKT(Loss):
    """Matches the student's neighbourhood probabilities to the teacher's.

    ``mean_ij P^t_ij · log(P^t_ij / P^s_ij)``, P_ij ∝ (cos(x_i, x_j) + 1)/2 + 1e-7 with each row normalised to sum 1:
    the KL of the rows, averaged over all B² entries (RepDistiller's reduction; KL averaged over the rows would be B
    times that), the diagonal included.

    Invariant to a rotation of either signal, to a rescaling of any example and to the order of the batch; 0 at B = 1.
    A zero vector has the same similarity to all others and gradient 0.

    Under DDP each rank compares the examples of its own slice of the batch only.

    Shape:
        student [B, …], teacher [B, …], of any sizes after B. Returns a scalar.

    Published weight: 30000 (RepDistiller, CIFAR-100, on the embedding), with cross-entropy at 1.

    Passalis & Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", 2018, arXiv:1803.10837.
    """

    least_rows = 2  # fewer examples have no relations

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the mean divergence over the B² pairs: a scalar."""
        student, teacher = flat_rows(student, teacher, "PKT")
        return divergence(neighbours(teacher), neighbours(student)).mean()
