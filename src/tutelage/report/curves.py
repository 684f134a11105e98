"""Curves over epochs, from TensorBoard's event files."""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event

TAGS = ("val/accuracy", "val/nll", "val/agreement", "train/loss")
_HEAD = struct.Struct("<Q4x")
_CHECKSUM = 4
Curve = Mapping[int, float]  # epoch → value


def read_curves(folder: Path) -> dict[str, Curve]:
    """Tag → curve of one training; several files of it (a run that went on) are one, later ones win.

    Args:
        folder: of one stage's event files; it may be missing.

    Returns:
        Of each of :data:`TAGS` that was logged, the last value of every epoch.
    """
    values: dict[str, dict[int, float]] = {}
    epochs: dict[int, int] = {}
    for file in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.name):
        for tag, step, value in _scalars(file):
            if tag == "epoch" and np.isfinite(value):
                epochs[step] = int(value)
            elif tag in TAGS and np.isfinite(value):
                values.setdefault(tag, {})[step] = value
    return {
        tag: {epochs[step]: value for step, value in sorted(steps.items()) if step in epochs}
        for tag, steps in values.items()
    }


def _scalars(file: Path) -> Iterator[tuple[str, int, float]]:
    """(tag, step, value) of every scalar up to where the file ends or was cut."""
    try:
        content = file.read_bytes()
    except OSError:
        return
    for record in _records(content):
        try:
            event = Event.FromString(record)
        except DecodeError:
            return
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield value.tag, event.step, value.simple_value


def _records(content: bytes) -> Iterator[bytes]:
    """The whole records of a TFRecord file: length (8 bytes), its checksum (4), the record, its checksum (4).

    TensorBoard's own readers take twenty times as long, which for the curves of 120 runs is 20 seconds.
    """
    start = 0
    while start + _HEAD.size <= len(content):
        (length,) = _HEAD.unpack_from(content, start)
        end = start + _HEAD.size + length
        if end + _CHECKSUM > len(content):
            return
        yield content[start + _HEAD.size : end]
        start = end + _CHECKSUM


@dataclass(frozen=True)
class Band:
    """Several curves as one: their mean, and one standard deviation to both sides.

    Attributes:
        epochs: those that every curve has.
        mean: one an epoch.
        low: mean − sd; the mean itself of one curve.
        high: mean + sd.
        count: how many curves.
    """

    epochs: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    count: int


def band(curves: Iterable[Curve]) -> Band | None:
    """The band of those that are not empty; None without one, or where they have no epoch in common."""
    full = [curve for curve in curves if curve]
    epochs = sorted(set.intersection(*(set(curve) for curve in full))) if full else []
    if not epochs:
        return None
    values = np.array([[curve[epoch] for epoch in epochs] for curve in full])
    mean, sd = values.mean(0), values.std(0, ddof=1) if len(full) > 1 else np.zeros(len(epochs))
    return Band(epochs, mean.tolist(), (mean - sd).tolist(), (mean + sd).tolist(), len(full))
