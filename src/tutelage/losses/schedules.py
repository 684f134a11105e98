"""Factors of a term over the epochs; a yaml binds the other arguments with ``_partial_: true``."""

import math


def warmup(epoch: int, epochs: int, length: int) -> float:
    """min((epoch + 1)/length, 1): the linear ramp of DKD and ReviewKD, whose epochs count from 1."""
    return min((epoch + 1) / length, 1.0)


def linear(epoch: int, epochs: int, start: float, end: float) -> float:
    """From ``start`` in the first epoch to ``end`` in the last along a line."""
    return start + (end - start) * _progress(epoch, epochs)


def cosine(epoch: int, epochs: int, start: float, end: float) -> float:
    """From ``start`` in the first epoch to ``end`` in the last along half a cosine."""
    return end + (start - end) * (1.0 + math.cos(math.pi * _progress(epoch, epochs))) / 2.0


def _progress(epoch: int, epochs: int) -> float:
    return epoch / (epochs - 1) if epochs > 1 else 1.0
