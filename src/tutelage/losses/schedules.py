"""Schedules of a term's weight: factors by epoch. A yaml binds the other arguments with ``_partial_: true``."""

import math


def warmup(epoch: int, epochs: int, length: int) -> float:
    """Returns min((epoch + 1)/length, 1), the linear ramp of DKD and ReviewKD, whose epochs count from 1."""
    return min((epoch + 1) / length, 1.0)


def linear(epoch: int, epochs: int, start: float, end: float) -> float:
    """Returns a factor that changes linearly from ``start`` in the first epoch to ``end`` in the last."""
    return start + (end - start) * _progress(epoch, epochs)


def cosine(epoch: int, epochs: int, start: float, end: float) -> float:
    """Returns a factor that changes along half a cosine from ``start`` in the first epoch to ``end`` in the last."""
    return end + (start - end) * (1.0 + math.cos(math.pi * _progress(epoch, epochs))) / 2.0


def between(epoch: int, epochs: int, start: float, end: float) -> float:
    """Returns 1 in the part of the training from ``start`` to ``end``, fractions of its epochs, and 0 outside of it."""
    return float(start <= epoch / epochs < end)


def after(epoch: int, epochs: int, first: int) -> float:
    """Returns 0 before epoch ``first``, counted from 1, then 1."""
    return float(epoch + 1 >= first)


def ramp_up(epoch: int, epochs: int, share: float) -> float:
    """Returns exp(−5 (1 − e/L)²) in the first L = ``share`` · epochs epochs e, counted from 0, then 1 (ONE)."""
    length = share * epochs
    return math.exp(-5.0 * (1.0 - epoch / length) ** 2) if epoch < length else 1.0


def _progress(epoch: int, epochs: int) -> float:
    return epoch / (epochs - 1) if epochs > 1 else 1.0
