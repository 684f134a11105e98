"""Weights rounded to few values, with gradients for what they were rounded from."""

from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError

SMALLEST = 1e-12  # the least scale, of a channel or an activation that is all zero


def check_bits(bits: int, name: str, least: int, most: int) -> int:
    """Returns ``bits``.

    Raises:
        TutelageError: they are no integer from ``least`` to ``most``.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not least <= bits <= most:
        raise TutelageError(f"{name} must be an integer from {least} to {most}; found {bits}")
    return bits


class PerChannel(nn.Module):
    """Signed integers of b bits times a scale for each output channel c of C.

    ``ŵ = s_c · clamp(round(w/s_c), −2^(b−1), 2^(b−1) − 1)``, ``s_c = max|w_c|/(2^(b−1) − 1)``, ties to even, so that
    zero stays zero and the extreme code is unused. The gradient passes straight through; the scale has none. By
    ``torch.fake_quantize_per_channel_affine``; on shapes alone (meta tensors), for which it does not exist, w itself.

    Args:
        bits: b.

    Shape:
        [C, …] → the same.
    """

    def __init__(self, bits: int):
        super().__init__()
        self.bits = bits

    def scale(self, weight: Tensor) -> Tensor:
        """Returns the scales, [C], without gradient."""
        largest = weight.detach().flatten(1).abs().amax(1).float()
        return (largest / (2 ** (self.bits - 1) - 1)).clamp(min=SMALLEST)

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the rounded weight."""
        return weight if weight.is_meta else per_channel(weight, self.scale(weight), self.bits)


def per_channel(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Returns ``weight`` [C, …] on the grid of each channel's ``scale``."""
    zero = torch.zeros_like(scale, dtype=torch.int32)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    rounded = torch.fake_quantize_per_channel_affine(weight.float(), scale, zero, 0, low, high)
    return rounded.to(weight.dtype)


class Buckets(nn.Module):
    """Uniform levels between the least and the greatest weight of each bucket (Polino et al. 2018).

    Consecutive weights are a bucket, the last one filled up with the last weight:
    ``ŵ = β + α·round((w − β)/α · (s − 1))/(s − 1)``, β = min, α = max − min, s = 2^b, ties to even; β where α = 0. The
    gradient passes straight through.

    Args:
        bits: b.
        size: weights in a bucket.

    Shape:
        [N, …] → the same.
    """

    def __init__(self, bits: int, size: int):
        super().__init__()
        self.bits, self.size = bits, size

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the rounded weight."""
        return _StraightThrough.apply(weight, self)

    def grid(self, weight: Tensor) -> Tensor:
        """Returns the same without a gradient."""
        flat, levels = weight.reshape(-1), 2**self.bits - 1
        filled = torch.cat([flat, flat[-1:].expand(-len(flat) % self.size)]).view(-1, self.size)
        low = filled.amin(1, keepdim=True)
        width = filled.amax(1, keepdim=True) - low
        shares = (filled - low) / torch.where(width > 0, width, torch.ones_like(width))
        found = low + width * ((shares * levels).round() / levels)
        return found.view(-1)[: len(flat)].view_as(weight)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, rounder: Buckets) -> Tensor:
        return rounder.grid(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class LearnedPoints(nn.Module):
    """Each weight becomes the nearest of 2^b learned points (differentiable quantisation, Polino et al. 2018).

    ``ŵ = p_j``, j = argmin |w − p_j|; ``∂L/∂p_j`` is the sum of ``∂L/∂ŵ`` over the weights assigned to j. The points
    start at the quantiles i/(2^b − 1) of the weights, which stay as they are.

    Args:
        bits: b.
        weight: of which the points are.

    Shape:
        [N, …], as ``weight`` → the same.
    """

    def __init__(self, bits: int, weight: Tensor):
        super().__init__()
        self.points = nn.Parameter(torch.zeros(2**bits))
        self.restart(weight)

    @torch.no_grad()
    def restart(self, weight: Tensor) -> None:
        """Puts the points at the quantiles of a weight."""
        ordered = weight.flatten().sort().values  # torch.quantile takes no more than 16 M elements
        places = torch.linspace(0, len(ordered) - 1, len(self.points), dtype=torch.float64, device=weight.device)
        below = places.floor().long()
        above = places.ceil().long()
        self.points.copy_(torch.lerp(ordered[below].double(), ordered[above].double(), places - below))

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the nearest points."""
        ordered, order = self.points.detach().sort()
        between = (ordered[1:] + ordered[:-1]) / 2
        return self.points[order[torch.searchsorted(between, weight.detach().contiguous())]]
