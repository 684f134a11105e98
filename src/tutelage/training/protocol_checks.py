"""Checks, before the first step, that networks and losses leave alone what others read, and answer twice the same."""

import logging
from collections.abc import Mapping

from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.types import Signals

log = logging.getLogger(__name__)

_SAME = 1e-3  # of the largest logit: kernels of a GPU may add in another order


def copied(signals: Mapping[str, Signals]) -> dict[str, dict[str, Tensor]]:
    """Returns copies of all signals, without gradient."""
    return {source: {name: x.detach().clone() for name, x in own.items()} for source, own in signals.items()}


def check_unchanged(before: Mapping[str, Signals], after: Mapping[str, Signals], by: str) -> None:
    """Compares signals with copies made earlier.

    Args:
        before: source → the copies.
        after: the signals now.
        by: who may have changed them, as the error says it.

    Raises:
        TutelageError: one has changed; names it.
    """
    for source, own in before.items():
        for name, x in own.items():
            now = after[source][name].detach()
            if not x.equal(now) and not bool(((x == now) | (x.isnan() & now.isnan())).all()):
                raise TutelageError(
                    f"{by} changes {source}.{name} in place, which others read after it: let it work on a copy, such "
                    "as x.clone(), or leave out inplace=True"
                )


def warn_of_chance(first: Tensor, second: Tensor) -> None:
    """Warns of a student that answers the same examples in two ways.

    Args:
        first: its logits in eval mode.
        second: the same, computed again.
    """
    difference, largest = float((first - second).abs().max()), float(first.abs().max())
    if difference > _SAME * largest:
        log.warning(
            "the student's answers in eval mode are random: the same examples twice differ by %.2g, with logits up to "
            "%.2g; its figures are those of one draw",
            difference, largest,
        )  # fmt: skip
