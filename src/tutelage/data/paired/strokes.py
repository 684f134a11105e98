"""Pen strokes: read from the text files of Omniglot, and drawn along at steps of equal length."""

from collections.abc import Sequence

import numpy as np

from tutelage.errors import TutelageError

Stroke = np.ndarray  # [P, 2] float64, the pen's places in pixels, x to the right and y downwards
FEATURES = 5  # of a point: x, y, dx, dy, whether its stroke ends there


def read_strokes(text: str, where: str) -> list[Stroke]:
    """Returns the strokes of a file of Omniglot: lines ``x,y,milliseconds`` between START and BREAK.

    Args:
        text: of the file; its y are negative, from 0 at the top.
        where: the file, for messages.

    Raises:
        TutelageError: a line is something else, or there is no point; names the line.
    """
    strokes: list[list[tuple[float, float]]] = [[]]
    for number, line in enumerate(text.split(), 1):
        if line == "START":
            continue
        if line == "BREAK":
            strokes.append([])
            continue
        try:
            x, y, _ = map(float, line.split(","))
        except ValueError:
            raise TutelageError(f"{where}: line {number}: expected x,y,milliseconds; found {line[:80]!r}") from None
        if not np.isfinite((x, y)).all():
            raise TutelageError(f"{where}: line {number}: expected finite numbers; found {line[:80]!r}")
        strokes[-1].append((x, -y))
    found = [np.array(stroke) for stroke in strokes if stroke]
    if not found:
        raise TutelageError(f"{where}: no stroke in it")
    return found


def as_sequence(strokes: Sequence[Stroke], length: int, spacing: float, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns a drawing as a sequence of points at equal steps along its strokes, whatever the pen's speed.

    Args:
        strokes: in the order of drawing.
        length: L, the most points; longer drawings have larger steps.
        spacing: the length of a step, in pixels.
        size: side of the paper in pixels; places are mapped to [−1, 1].

    Returns:
        [L, 5] float32 (x, y, the step dx, dy to it from the point before, also between strokes, and 1 where a stroke
        ends), zeros behind the last point; and a mask [L], true for points.

    Raises:
        TutelageError: there are more strokes than points.
    """
    if len(strokes) > length:
        raise TutelageError(f"data.strokes_shape: a drawing has {len(strokes)} strokes, more than {length} points")
    along = [np.concatenate([[0.0], np.hypot(*np.diff(stroke, axis=0).T).cumsum()]) for stroke in strokes]
    while True:
        counts = [max(1, round(float(way[-1]) / spacing) + 1) for way in along]
        if sum(counts) <= length:
            break
        spacing *= 1.05
        if spacing > size * length:  # every stroke is a single point
            counts = [1] * len(strokes)
            break
    points = np.concatenate([_walked(*one) for one in zip(strokes, along, counts, strict=True)]) / size * 2 - 1
    features = np.zeros((length, FEATURES), dtype=np.float32)
    features[: len(points), :2] = points
    features[1 : len(points), 2:4] = np.diff(points, axis=0)
    features[np.cumsum(counts) - 1, 4] = 1
    return features, np.arange(length) < len(points)


def _walked(stroke: Stroke, along: np.ndarray, count: int) -> np.ndarray:
    """Returns ``count`` points of a stroke, its first and last among them."""
    places = np.linspace(0, along[-1], count)
    return np.stack([np.interp(places, along, stroke[:, axis]) for axis in (0, 1)], 1)
