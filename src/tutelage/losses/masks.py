"""Masks as arguments of a loss: means over the valid elements, such that padding changes neither value nor gradient.

A mask is true for valid elements. A loss takes one as an argument if it needs the positions themselves, as attention
does; for losses that read row by row, ``where`` of :class:`tutelage.objective.Term` selects the valid rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.ranks import mean_over_ranks


def check_mask(mask: Tensor, shape: torch.Size, what: str) -> None:
    """Checks that a mask has a bool for each element.

    Args:
        mask: the mask.
        shape: of what it masks, as ``[B, L]``.
        what: the name of the loss.

    Raises:
        TutelageError: another dtype or shape; names both.
    """
    if mask.dtype != torch.bool or mask.shape != shape:
        raise TutelageError(
            f"{what}: expected a mask of bools {list(shape)}, true for valid elements; "
            f"found {mask.dtype} {list(mask.shape)}"
        )


def of_map(mask: Tensor, size: torch.Size) -> Tensor:
    """Returns a mask of pixels as one of a smaller map: a position is valid if any pixel in it is.

    Args:
        mask: [B, H, W] bools.
        size: [H', W'] of the map; returns the mask unchanged if H and W are no multiples of it.
    """
    windows = [pixels // positions for pixels, positions in zip(mask.shape[1:], size, strict=True)]
    if max(windows) < 2 or [n * k for n, k in zip(size, windows, strict=True)] != list(mask.shape[1:]):
        return mask
    return F.max_pool2d(mask[:, None].float(), windows)[:, 0] > 0


def only(x: Tensor, mask: Tensor | None) -> Tensor:
    """Returns ``x`` with masked elements, even NaN, replaced by 0; they get no gradient.

    Args:
        x: [*mask, …].
        mask: bools, or None if every element is valid.
    """
    return x if mask is None else x.where(trailing(mask, x.dim()), 0)


def trailing(mask: Tensor, dims: int) -> Tensor:
    """Returns the mask with as many axes of size 1 at its end as make ``dims`` in all."""
    return mask.reshape(*mask.shape, *[1] * (dims - mask.dim()))


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the mean over the valid elements, a scalar; 0 if there is none.

    With several ranks, the mean of their results is the mean over the valid elements of all ranks, so that a loss that
    returns it says ``counts_over_ranks``.

    Args:
        values: [*mask, …]; masked values are ignored, but their gradients are only safe if they are finite.
        mask: bools, or None if every element is valid.
    """
    if mask is None:
        return values.sum() / mean_over_ranks(values.new_full((), float(values.numel())))
    each = values.shape[mask.dim() :].numel()
    return only(values, mask).sum() / (each * mean_over_ranks(mask.sum().to(values.dtype)))
