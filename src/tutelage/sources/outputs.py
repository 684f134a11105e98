"""Checks the outputs of a black box and turns them into logits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import TutelageError

KINDS = ("logits", "probabilities")
FLOOR = 1.2e-38  # the smallest normal number of float32, rounded up
_TOLERANCE = 1e-3  # of a row's sum: rounding to four decimals for ten classes, to six for a thousand


def check_kind(kind: str, floor: float) -> None:
    """Checks the arguments ``kind`` and ``floor``.

    Raises:
        TutelageError: ``kind`` is not one of :data:`KINDS`, or ``floor`` is not a normal float32 number below 1.
    """
    if kind not in KINDS:
        raise TutelageError(f"kind must be 'logits' or 'probabilities'; found {kind!r}")
    if not FLOOR <= floor < 1.0:
        raise TutelageError(f"floor must be a probability of at least {FLOOR} and below 1; found {floor}")


def as_logits(
    values: NDArray[Any],
    kind: str,
    num_classes: int,
    floor: float,
    name: str,
    keys: Sequence[int] | NDArray[Any],
    allow_normalised: bool = False,
) -> NDArray[np.float32]:
    """Returns logits unchanged and probabilities as their logarithms, after checking them.

    Probabilities p become log max(p, floor). Their softmax at T = 1 is p, up to rounding and the floor; at other T it
    equals that of the original logits, which differ from log p by a constant per row.

    Args:
        values: [N, C] numbers.
        kind: ``logits`` or ``probabilities``.
        num_classes: the expected C.
        floor: replaces smaller probabilities, such as 0, which has no logarithm.
        name: origin of ``values``, for messages.
        keys: keys of the rows [N], for messages.
        allow_normalised: whether logits may all be at least 0 and sum to 1 or 100, as probabilities do.

    Returns:
        Logits [N, C], float32.

    Raises:
        TutelageError: another shape, a value that is not finite in float32, a negative probability, a row of
            probabilities that does not sum to 1 within 0.001, or logits that look like probabilities.
    """
    if values.dtype.kind not in "fiu":
        raise TutelageError(f"{name}: expected {kind} that are numbers, found {values.dtype}")
    if values.shape != (expected := (len(keys), num_classes)):
        raise TutelageError(f"{name}: expected {kind} {list(expected)} (examples, classes), found {list(values.shape)}")
    with np.errstate(over="ignore"):  # overflows are reported below, with their example
        found = values.astype(np.float32)
    _refuse(~np.isfinite(found), found, "finite " + kind, name, keys)
    if kind == "logits":
        if not allow_normalised:
            _refuse_normalised(found, name)
        return found
    _refuse(found < 0, found, "probabilities ≥ 0", name, keys, ". Logits, and logarithms of probabilities: kind=logits")
    sums = found.sum(axis=1, dtype=np.float64)
    if (wrong := np.abs(sums - 1) > _TOLERANCE).any():
        row = int(wrong.argmax())
        raise TutelageError(
            f"{name}: expected probabilities that sum to 1, found {sums[row]:.6g} for example {int(keys[row])} "
            f"(row {row}); {int(wrong.sum())} of {len(sums)} rows are wrong. "
            + ("Divide percentages by 100" if _sum_to(sums, 100) else "Are they logits (kind=logits)?")
        )
    return np.log(np.maximum(found, np.float32(floor)))


def _sum_to(sums: NDArray[np.float64], total: float) -> bool:
    return bool((np.abs(sums - total) <= total * _TOLERANCE).all())


def _refuse_normalised(values: NDArray[np.float32], name: str) -> None:
    sums = values.sum(axis=1, dtype=np.float64)
    if values.shape[1] < 2 or not len(values) or (values < 0).any():
        return
    for total, what in ((1, "probabilities"), (100, "percentages")):
        if _sum_to(sums, total):
            raise TutelageError(
                f"{name}: all {len(sums)} rows are at least 0 and sum to {total}: these look like {what} and not like "
                "logits. Set kind=probabilities (in a range from 0 to 1), or allow_normalised=true if they are logits"
            )


def _refuse(
    wrong: NDArray[np.bool_],
    values: NDArray[Any],
    expected: str,
    name: str,
    keys: Sequence[int] | NDArray[Any],
    hint: str = "",
) -> None:
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise TutelageError(
            f"{name}: expected {expected}, found {values[row, column]} for class {column} of example "
            f"{int(keys[row])} (row {row}); {int(wrong.any(axis=1).sum())} of {len(values)} rows are wrong{hint}"
        )
