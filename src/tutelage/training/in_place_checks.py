"""Refuses networks and losses that change in place what others read after them."""

from collections.abc import Mapping

from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.types import Signals


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
