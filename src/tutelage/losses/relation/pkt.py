"""Probabilistic knowledge transfer (Passalis & Tefas 2018)."""

import torch
from torch import Tensor

from tutelage.losses.base import Loss
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.sp import flat_rows, unit

EPSILON = 1e-7  # RepDistiller's, which adds it inside the logarithm instead


def neighbours(rows: Tensor) -> Tensor:
    """P [B, B], row-stochastic: how probable example j is as a neighbour of i, ∝ (cos(x_i, x_j) + 1)/2 + ε."""
    directions = unit(rows)
    near = ((directions @ directions.T).clamp(-1, 1) + 1) / 2 + EPSILON
    return near / near.sum(1, keepdim=True)


def divergence(target: Tensor, guess: Tensor) -> Tensor:
    """``target · log(target/guess) − target + guess``, elementwise, ≥ 0.

    Summed over a distribution it is the KL, but each entry is already of second order in the difference. The entries
    of the plain form are of first order and cancel, in float32 to nothing but rounding once the student is close
    (test_pkt.py).
    """
    change = (guess - target) / target
    close = change.abs() < 0.5
    log = torch.where(close, torch.log1p(change.where(close, 0)), guess.log() - target.log())
    return target * (change - log)


class PKT(Loss):
    """The student's neighbourhoods, as probabilities, are the teacher's.

    ``mean_ij P^t_ij · log(P^t_ij / P^s_ij)``, P_ij ∝ (cos(x_i, x_j) + 1)/2 + 1e-7 with each row normalised to sum 1:
    the KL of the rows, averaged over all B² entries (RepDistiller's reduction; KL averaged over the rows would be B
    times that). The diagonal counts.

    Unchanged by a rotation of either signal, by a rescaling of any single example and by the order of the batch; 0 at
    B = 1. A zero vector is equally near to all others and gets no gradient.

    Under DDP each rank compares the examples of its own slice of the batch only.

    Shape:
        student [B, …], teacher [B, …], of any sizes behind B. Returns a scalar.

    Published weight: 30000 (RepDistiller, CIFAR-100, on the embedding), next to cross-entropy at 1.

    Learning Deep Representations with Probabilistic Knowledge Transfer, arXiv:1803.10837.
    """

    least_rows = 2  # fewer have no relation that could differ

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean divergence over the B² pairs: a scalar."""
        student, teacher = flat_rows(student, teacher, "PKT")
        return divergence(neighbours(teacher), neighbours(student)).mean()
