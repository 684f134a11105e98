"""Shared parts of the logit losses: checked hyperparameters, rows, masked classes, Kullback-Leibler by rows.

Classes are the last axis. Losses take [B, C]; other shapes are refused, for of [B, C, H, W] nothing says that the last
axis is not the classes: whoever has more rows flattens them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.precision import check_same_shape

LOWEST = -1e30  # stands for −inf: its softmax is 0 and, unlike −inf, so is its product with 0


def constant(value: float, name: str, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """A hyperparameter as a 0-dim float32 tensor, to be registered as a non-persistent buffer.

    Args:
        value: the number.
        name: what the message calls it, such as ``"DKD.alpha"``.
        low: the least value allowed.
        high: the greatest.

    Raises:
        TutelageError: not a finite number in [low, high].
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        raise TutelageError(f"{name}: expected a finite number in [{low:g}, {high:g}], found {value!r}")
    return torch.tensor(number)


def checked_temperature(value: float, loss: str) -> Tensor:
    """The :func:`constant` ``"<loss>.temperature"``, at least 1e-3 so that nothing divided by it overflows.

    Raises:
        TutelageError: not finite, or smaller.
    """
    return constant(value, f"{loss}.temperature", low=1e-3)


def rows(logits: Tensor, what: str) -> Tensor:
    """``logits``, checked to be [B, C].

    Raises:
        TutelageError: another number of dimensions, or no element.
    """
    if logits.dim() != 2 or not logits.numel():
        flatten = {3: "flatten(0, -2) if classes are the last axis", 4: "movedim(1, -1).flatten(0, -2) of [B, C, H, W]"}
        advice = f"; one row a place: {flatten[logits.dim()]}" if logits.dim() in flatten else ""
        raise TutelageError(
            f"{what}: expected logits [B, C], classes last and none empty, found {list(logits.shape)}{advice}"
        )
    return logits


def check_relations(logits: Tensor, what: str) -> None:
    """Raises where rows are compared but for mean and spread and C = 2: two numbers have no more, so nothing is taught.

    Raises:
        TutelageError: fewer than three classes.
    """
    if logits.shape[-1] < 3:
        raise TutelageError(
            f"{what} compares the form of a row of logits, which every two numbers share: "
            f"it needs 3 classes or more, found {list(logits.shape)}"
        )


def paired_rows(student: Tensor, teacher: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """:func:`rows` of both.

    Raises:
        TutelageError: their shapes differ, or are not those of logits.
    """
    check_same_shape(student, teacher, what)
    return rows(student, what), rows(teacher, what)


def column(index: Tensor, logits: Tensor, what: str) -> Tensor:
    """A label (or key) for each row of ``logits`` [B, C], as [B, 1].

    Raises:
        TutelageError: not one integer for each row.
    """
    if index.shape != logits.shape[:-1] or index.is_floating_point():
        raise TutelageError(
            f"{what}: expected integers {list(logits.shape[:-1])} for logits {list(logits.shape)}, "
            f"found {index.dtype} {list(index.shape)}"
        )
    return index.reshape(-1, 1).long()


def floored(logits: Tensor, lowest: float) -> Tensor:
    """Logits of at least ``lowest``: a clamp in less than half the time, forward and backward on a CPU."""
    return F.threshold(logits, lowest, lowest)


def log_softmax(logits: Tensor, temperature: Tensor | None = None) -> Tensor:
    """Log softmax(logits / temperature) by rows, finite for masked classes (logit −inf) too.

    A masked class gets about ``LOWEST``, a row that is masked whole the uniform distribution. NaN stays NaN.
    """
    logits = floored(logits, LOWEST)
    return (logits if temperature is None else logits / temperature).log_softmax(-1)


def kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q‖p) by rows of two distributions: [B, C], [B, C] → [B].

    ``Σ (p − q − q∘d)``, d = log(p/q). Between near-equals −Σ q∘d alone is lost in the rounding of both logarithms'
    normalisers, and negative as often as not; Σ (p − q), 0 but for that same rounding, takes it away if p − q keeps its
    digits, as ``(p + q) tanh(d/2)`` does (and expm1, at five times the time).
    """
    p, q, d = log_p.exp(), log_q.exp(), log_p - log_q
    return torch.addcmul((p + q) * (d / 2).tanh(), q, d, value=-1).sum(-1)
