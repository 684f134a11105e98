"""Shapes of the signals that a cache stores, and which of their axes are as long as a text."""

import torch
from torch import Tensor

from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.sources.base import Source
from tutelage.sources.cached import topk_compress
from tutelage.sources.store import Column
from tutelage.types import Batch, Signals, is_shared


def columns(source: Source, data: Data, dtype: str, top: int | None, device: torch.device) -> list[Column]:
    """Returns a column for each signal of ``source`` that has a value by example.

    Where batches have different widths, the shortest text is asked at its own width and at that of the longest text:
    axes that differ are as long as the text, and their columns have the longest one's shape.

    Args:
        source: attached, in eval mode, on ``device``.
        data: loaded.
        dtype: of floating-point signals.
        top: number of classes that are stored; None: all.
        device: where the source is.

    Raises:
        TutelageError: a signal's shape depends on the width of the batch otherwise.
    """
    train = data.splits["train"]
    if not data.ragged:
        found, _ = signals_of(source, train[0, torch.arange(min(2, len(train)))], device, top)
        return [_column(name, x, dtype, ()) for name, x in found.items()]
    shortest = train.lengths("input")[train.keys].argmin()[None]
    batches = train[0, shortest], data.at_one_width()[0, shortest]
    widths = [batch["input"].shape[1] for batch in batches]
    short, long = (signals_of(source, batch, device, top)[0] for batch in batches)
    return [_column(name, x, dtype, _axes(name, short[name], x, widths)) for name, x in long.items()]


def _axes(name: str, short: Tensor, long: Tensor, widths: list[int]) -> tuple[int, ...]:
    """Returns the axes of an example's signal that are as long as its text."""
    sizes = list(zip(short.shape[1:], long.shape[1:], strict=False))
    found = tuple(axis for axis, (a, b) in enumerate(sizes) if a != b)
    if short.ndim != long.ndim or any(list(sizes[axis]) != widths for axis in found):
        raise TutelageError(
            f"the signal {name!r} of a text of {widths[0]} tokens is {list(short.shape[1:])}, in a batch of "
            f"{widths[1]} it is {list(long.shape[1:])}: a cache stores signals of one shape, or with axes as long "
            "as the text; set data.pad=max"
        )
    return found


def _column(name: str, x: Tensor, dtype: str, tokens: tuple[int, ...]) -> Column:
    return Column(name, tuple(x.shape[1:]), dtype if x.is_floating_point() else "int32", tokens)


def signals_of(source: Source, batch: Batch, device: torch.device, top: int | None) -> tuple[Signals, Signals]:
    """Returns the signals by example, and those shared by all: parameters, whose names contain a dot; on the CPU."""
    with torch.no_grad():
        signals = source({name: value.to(device) for name, value in batch.items()})
    by_example = {name: x.cpu() for name, x in signals.items() if not is_shared(name)}
    if top is not None and "logits" in by_example:
        by_example |= topk_compress(by_example.pop("logits"), top)
    return by_example, {name: x.cpu() for name, x in signals.items() if is_shared(name)}
