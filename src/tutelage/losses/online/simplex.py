"""Convex functions of weights that are at least 0 and sum to 1."""

from collections.abc import Callable

import torch
from torch import Tensor


def least_on_simplex(gradient: Callable[[Tensor], Tensor], start: Tensor, bound: Tensor, steps: int) -> Tensor:
    """Returns weights [B, K] that minimise a convex function of each row, by accelerated projected gradients.

    Its value is within ``2 · bound · ‖start − optimum‖² / (steps + 1)²`` of the least one (Beck & Teboulle 2009).

    Args:
        gradient: weights [B, K] → gradients [B, K].
        start: weights [B, K].
        bound: [B, 1], at least the greatest curvature of each row's function, above 0.
        steps: number of gradients.
    """
    weights = ahead = start
    momentum = 1.0
    for _ in range(steps):
        reached = onto_simplex(ahead - gradient(ahead) / bound)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = reached + (momentum - 1) / following * (reached - weights)
        weights, momentum = reached, following
    return weights


def onto_simplex(x: Tensor) -> Tensor:
    """Returns the nearest rows to those of ``x`` [B, K] that are at least 0 and sum to 1 (Duchi et al. 2008)."""
    falling = x.sort(1, descending=True).values
    excess = falling.cumsum(1) - 1
    numbers = torch.arange(1, x.shape[1] + 1, device=x.device)
    kept = (falling * numbers > excess).sum(1, keepdim=True)
    return (x - excess.gather(1, kept - 1) / kept).clamp(min=0)
