"""What the logit losses share: checked hyperparameters, rows of logits, masked classes, Kullback-Leibler by rows."""

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
    """[..., C] as [B, C], all leading dimensions flattened.

    Raises:
        TutelageError: fewer than two dimensions, or no element.
    """
    if logits.dim() < 2 or not logits.numel():
        raise TutelageError(f"{what}: expected logits [B, C] or [..., C], none empty, found {list(logits.shape)}")
    return logits.flatten(0, -2)


def paired_rows(student: Tensor, teacher: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """:func:`rows` of both.

    Raises:
        TutelageError: their shapes differ, or are not those of logits.
    """
    check_same_shape(student, teacher, what)
    return rows(student, what), rows(teacher, what)


def column(index: Tensor, logits: Tensor, what: str) -> Tensor:
    """A label (or key) for each row of ``logits`` [..., C], as [B, 1].

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
    """KL(q‖p) = Σ q (log q − log p) by rows: [B, C], [B, C] → [B]."""
    return (log_q.exp() * (log_q - log_p)).sum(-1)
