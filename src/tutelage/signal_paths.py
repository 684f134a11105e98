"""Paths of signals, ``"<source>.<signal>"``: how a term names what it reads, and reads it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tutelage.errors import TutelageError, nearest
from tutelage.types import SOFT_LABEL, Signals

Path = str | list[str]  # "<source>.<signal>", or several


def plain(bound: Mapping[str, Path]) -> dict[str, Path]:
    """Returns plain containers instead of OmegaConf's, which are slow to access."""
    return {name: path if isinstance(path, str) else list(path) for name, path in bound.items()}


def detached(x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """Returns a signal, or several, without gradient."""
    return [t.detach() for t in x] if isinstance(x, list) else x.detach()


def read(signals: Mapping[str, Signals], path: Path) -> Any:
    """Returns the signal that a path names; several as a list.

    Where a batch has no ``soft_label``, its ``label`` stands for it; ``labelled`` is where a label is known.

    Raises:
        TutelageError: there is no such signal; names the nearest.
    """
    if isinstance(path, list):
        return [read(signals, one) for one in path]
    source, name = path.split(".", 1)
    if path == "batch.labelled" and name not in signals[source]:
        return is_known(read(signals, "batch.label"))
    if name == SOFT_LABEL and source == "batch" and name not in signals[source]:
        return read(signals, "batch.label")
    try:
        return signals[source][name]
    except KeyError:
        raise TutelageError(
            f"no signal {path!r}; " + nearest(path, (f"{s}.{n}" for s, named in signals.items() for n in named))
        ) from None


def is_known(labels: Tensor, each: bool = False) -> Tensor:
    """Returns which labels are known: integers from 0 on, floats that are not NaN.

    Args:
        labels: [B, …] integers, one for each row of logits; or floats, [B] or [B, D] numbers of one row.
        each: of every number; by default of a row of numbers whether any is known.

    Returns:
        Bools: of integers as ``labels``, of floats [B].
    """
    if not labels.is_floating_point():
        return labels >= 0
    known = ~labels.isnan()
    return known if each or known.dim() == 1 else known.flatten(1).any(1)
