"""Shared parts of the logit losses: checked hyperparameters, rows, masked classes, Kullback-Leibler by rows.

Losses take logits [B, C], classes last. Other shapes are refused, since the class axis of [B, C, H, W] would be
ambiguous: flatten further dimensions into rows.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.precision import check_same_shape

LOWEST = -1e30  # replaces −inf: its softmax is 0 as well, but its product with 0 is 0, not NaN


def constant(value: float, name: str, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """Returns a hyperparameter as a 0-dim float32 tensor, to be registered as a non-persistent buffer.

    Args:
        value: the number.
        name: its name in the error message, such as ``"DKD.alpha"``.
        low: the least value allowed.
        high: the greatest value allowed.

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
    """Returns the :func:`constant` ``"<loss>.temperature"``, at least 1e-3 so that dividing by it does not overflow.

    Raises:
        TutelageError: not finite or below 1e-3.
    """
    return constant(value, f"{loss}.temperature", low=1e-3)


def rows(logits: Tensor, what: str) -> Tensor:
    """Returns ``logits`` after checking that they are [B, C] and not empty.

    Raises:
        TutelageError: another number of dimensions, or no element.
    """
    if logits.dim() != 2 or not logits.numel():
        flatten = {3: "flatten(0, -2) if classes are the last axis", 4: "movedim(1, -1).flatten(0, -2) of [B, C, H, W]"}
        advice = f"; for one row per position use {flatten[logits.dim()]}" if logits.dim() in flatten else ""
        raise TutelageError(
            f"{what}: expected non-empty logits [B, C], classes last, found {list(logits.shape)}{advice}"
        )
    return logits


def check_relations(logits: Tensor, what: str) -> None:
    """Checks that there are three classes or more, for losses that ignore the mean and scale of a row.

    Two logits are always equal up to mean and scale, so such a loss would have no gradient.

    Raises:
        TutelageError: fewer than three classes.
    """
    if logits.shape[-1] < 3:
        raise TutelageError(
            f"{what} compares rows of logits up to mean and scale, which are equal for any two logits: "
            f"it needs 3 classes or more, found {list(logits.shape)}"
        )


def paired_rows(student: Tensor, teacher: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Returns both after checking that they are logits [B, C] of the same shape.

    Raises:
        TutelageError: their shapes differ, or are not [B, C].
    """
    check_same_shape(student, teacher, what)
    return rows(student, what), rows(teacher, what)


def all_members(student: Tensor, others: Tensor, what: str, whose: str = "peers' logits") -> list[Tensor]:
    """Returns the logits of a student [B, C] and of the K − 1 networks or branches beside it [B, K − 1, C], K × [B, C].

    Args:
        student: the student's.
        others: those of the others.
        what: name of the loss.
        whose: what it calls the others.

    Raises:
        TutelageError: the shapes do not match.
    """
    rows(student, what)
    if others.dim() != 3 or others[:, 0].shape != student.shape:
        raise TutelageError(
            f"{what}: expected {whose} [B, K − 1, C] for a student's {list(student.shape)}; found {list(others.shape)}"
        )
    return [student, *others.unbind(1)]


def column(index: Tensor, logits: Tensor, what: str) -> Tensor:
    """Returns labels or keys [B] of the rows of ``logits`` [B, C] as [B, 1], int64.

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
    """Returns the logits clamped from below at ``lowest``, in less than half the time of ``clamp`` on a CPU."""
    return F.threshold(logits, lowest, lowest)


def log_softmax(logits: Tensor, temperature: Tensor | None = None) -> Tensor:
    """Returns log softmax(logits / temperature) by rows, which is finite for masked classes (logit −inf) too.

    A masked class gets about ``LOWEST``, a fully masked row the uniform distribution. NaN stays NaN.
    """
    logits = floored(logits, LOWEST)
    return (logits if temperature is None else logits / temperature).log_softmax(-1)


def kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Returns KL(q‖p) by rows of two distributions given as logarithms: [B, C], [B, C] → [B].

    Computed as ``Σ (p − q − q∘d)``, d = log(p/q). For nearly equal distributions −Σ q∘d alone is dominated by the
    rounding errors of the two normalisers and often negative; Σ (p − q), which is 0 up to the same rounding errors,
    cancels them if p − q is accurate, which ``(p + q) tanh(d/2)`` is (expm1 also, but it takes five times as long).
    """
    p, q, d = log_p.exp(), log_q.exp(), log_p - log_q
    return torch.addcmul((p + q) * (d / 2).tanh(), q, d, value=-1).sum(-1)


def label_and_rest(log_p: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Splits distributions at a class of each row.

    Args:
        log_p: logarithms of probabilities, [B, C].
        label: the classes, [B, 1].

    Returns:
        log [p_y, 1 − p_y], [B, 2], and the logarithms of the other classes' distribution, [B, C], in which the entry of
        the class is about ``LOWEST``.
    """
    others = log_p.scatter(1, label, LOWEST)
    return torch.cat([log_p.gather(1, label), others.logsumexp(1, keepdim=True)], 1), others.log_softmax(1)
