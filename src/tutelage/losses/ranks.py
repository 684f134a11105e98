"""Gathers tensors of all ranks, and counts over all ranks, for losses that need more than their own share."""

import torch
import torch.distributed as dist
from torch import Tensor


def all_ranks(x: Tensor) -> Tensor:
    """Returns [S, B, …] of all ranks, joined along B in rank order, without gradient; B may differ between ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return x
    sizes = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([x.shape[1]], device=x.device))
    longest = int(torch.cat(sizes).max())
    padded = torch.cat([x, x.new_zeros(x.shape[0], longest - x.shape[1], *x.shape[2:])], 1)
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:, : int(size)] for part, size in zip(parts, sizes, strict=True)], 1)


def mean_over_ranks(count: Tensor, least: float = 1.0) -> Tensor:
    """Returns the mean of a count over all ranks, with a total of at least ``least``.

    Each rank divides its own sum by it: averaged over ranks, as gradients are, that is the sum of all divided by the
    total count.

    Args:
        count: this rank's count, a scalar of floats.
        least: what an empty batch is divided by.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return count.clamp(min=least)
    total = count.clone()
    dist.all_reduce(total)
    return total.clamp(min=least) / dist.get_world_size()
