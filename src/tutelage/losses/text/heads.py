"""Shared parts of the losses on attention: checks queries, keys and values, and computes products by head."""

import math
from collections.abc import Mapping

from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.masks import check_mask, only


def checked_heads(heads: int, what: str) -> int:
    """Returns ``heads``, checked to be an integer of 1 or more.

    Raises:
        TutelageError: it is not.
    """
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1:
        raise TutelageError(f"{what}: expected an integer of 1 or more, found {heads!r}")
    return heads


def check_states(states: Mapping[str, Tensor], mask: Tensor | None, heads: int, what: str) -> None:
    """Checks that states are [B, L, d] with one B and L, that their widths are multiples of the heads, and the mask.

    Args:
        states: name → tensor.
        mask: [B, L] bools, or None.
        heads: the number of heads.
        what: the name of the loss.

    Raises:
        TutelageError: names the shapes.
    """
    shapes = ", ".join(f"{name} {list(one.shape)}" for name, one in states.items())
    if any(one.dim() != 3 for one in states.values()) or len({one.shape[:2] for one in states.values()}) != 1:
        raise TutelageError(f"{what} takes states [B, L, d] with the same B and L; found {shapes}")
    if any(one.shape[2] % heads for one in states.values()):
        raise TutelageError(f"{what}: every width must be a multiple of {heads} heads; found {shapes}")
    if mask is not None:
        check_mask(mask, next(iter(states.values())).shape[:2], what)


def products(first: Tensor, second: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Returns the scaled products of all pairs of positions, ``x_i · y_j / √d_head``, [B, heads, L, L].

    Args:
        first: [B, L, d].
        second: [B, L, d].
        heads: the number of heads; d is split into so many consecutive parts.
        mask: [B, L] bools; masked states are taken as 0.
    """
    x, y = (only(one, mask).unflatten(2, (heads, -1)).transpose(1, 2) for one in (first, second))
    return x @ y.transpose(2, 3) / math.sqrt(x.shape[3])
