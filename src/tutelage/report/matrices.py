"""Draws heat maps: gain over two keys, confusion matrices and their difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tutelage.evaluation.confusion import WRITTEN_CLASSES, shading
from tutelage.report.svg import Drawing, data_uri
from tutelage.tasks.figure_kinds import FigureKind


@dataclass(frozen=True)
class Tile:
    """One tile of :func:`heat_map`."""

    value: float
    text: str
    tip: str = ""
    significant: bool = False
    chosen: bool = False


def heat_map(
    name: str,
    title: str,
    x_name: str,
    y_name: str,
    columns: Sequence[str],
    rows: Sequence[str],
    tiles: Sequence[Sequence[Tile | None]],
) -> str:
    """Draws tiles shaded by value: gains plain, losses hatched, so that it is readable without colours.

    Args:
        name: of the drawing.
        title: of it.
        x_name: key of the columns.
        y_name: key of the rows.
        columns: values of the columns.
        rows: values of the rows.
        tiles: tiles by row; None where there is no cell.
    """
    left, top, high = 20 + 7.5 * max(map(len, (*rows, ""))) + 18, 6.0, 46.0
    wide = max(76.0, 7.2 * max(map(len, columns)) + 12, (400 - left - 8) / max(len(columns), 4))
    size = left + wide * len(columns) + 8, top + high * len(rows) + 44
    found = [tile for line in tiles for tile in line if tile]
    description = "; ".join(
        f"{y_name} {rows[i]}, {x_name} {columns[j]}: {tile.text}{' significant' * tile.significant}"
        for i, line in enumerate(tiles) for j, tile in enumerate(line) if tile
    )  # fmt: skip
    on = Drawing(name, *size, title, description)
    most = max((abs(tile.value) for tile in found), default=0.0) or 1.0
    for i, line in enumerate(tiles):
        on.text(left - 8, top + high * i + high / 2 + 4, rows[i], anchor="end")
        for j, tile in enumerate(line):
            _tile(on, left + wide * j, top + high * i, wide, high, tile, most)
    for j, column in enumerate(columns):
        on.text(left + wide * (j + 0.5), top + high * len(rows) + 17, column, anchor="middle")
    on.text(left + wide * len(columns) / 2, top + high * len(rows) + 36, x_name, "name", "middle")
    on.text(14, top + high * len(rows) / 2, y_name, "name", "middle", turned=True)
    return str(on)


def _tile(on: Drawing, x: float, y: float, wide: float, high: float, tile: Tile | None, most: float) -> None:
    box: dict[str, Any] = {"x": x + 1, "y": y + 1, "width": wide - 2, "height": high - 2}
    if tile is None:
        on.add("rect", **box, class_="absent", tip="not tried")
        return
    strength = 0.08 + 0.5 * abs(tile.value) / most
    sign = "gain" if tile.value >= 0 else "loss"
    on.add("rect", **box, class_=f"tile {sign}", fill_opacity=f"{strength:.2f}", tip=tile.tip)
    if sign == "loss":
        for k in range(1, int((wide + high) / 12)):
            _hatch(on, x + 1, y + 1, wide - 2, high - 2, 12.0 * k)
        on.add("rect", x=x + wide / 2 - 27, y=y + high / 2 - 10, width=54, height=20, class_="paper", rx=3)
    if tile.chosen:
        on.add("rect", x=x + 2.5, y=y + 2.5, width=wide - 5, height=high - 5, class_="frame")
    on.text(
        x + wide / 2,
        y + high / 2 + 4,
        tile.text + " *" * tile.significant,
        f"tiled{' strong' * tile.significant}",
        "middle",
    )


def _hatch(on: Drawing, x: float, y: float, wide: float, high: float, offset: float) -> None:
    """Draws one stroke x' + y' = offset, clipped to the box."""
    a = (min(offset, wide), max(0.0, offset - wide))
    b = (max(0.0, offset - high), min(offset, high))
    on.line(x + a[0], y + a[1], x + b[0], y + b[1], "hatch")


def confusion(name: str, title: str, matrix: np.ndarray, names: Sequence[str], difference: bool = False) -> str:
    """Draws a confusion matrix, rows true and columns predicted; or the difference of two.

    Args:
        name: of the drawing.
        title: of it.
        matrix: [C, C] counts, or their differences.
        names: names of the classes.
        difference: whether it is a difference: signed; improvements (more on, less off the diagonal) are plain.
    """
    classes = len(names)
    if classes > WRITTEN_CLASSES:
        return _pixels(name, title, matrix, difference)
    left = 24 + 6.6 * min(max(map(len, names)), 12)
    cell = max(26.0, (400 - left - 4) / classes)
    long = max(map(len, names)) > 3  # long names are rotated
    top = 30 + (6.0 * min(max(map(len, names)), 12) if long else 14)
    on = Drawing(
        name, left + cell * classes + 4, top + cell * classes + 6, title, _described(matrix, names, difference)
    )
    shade = shading(matrix, difference).tolist()
    values = matrix.tolist()
    on.text(left, 14, "predicted →   true ↓", "small")
    for i, label in enumerate(names):
        on.text(left - 6, top + cell * (i + 0.5) + 4, label[:12], anchor="end")
        at = left + cell * (i + 0.5)
        if long:
            on.text(at + 4, top - 6, label[:12], anchor="start", turned=True)
        else:
            on.text(at, top - 6, label, anchor="middle")
        for j, value in enumerate(values[i]):
            good = (value > 0) == (i == j) if difference else True
            box: dict[str, Any] = {"x": left + cell * j, "y": top + cell * i, "width": cell - 1, "height": cell - 1}
            opacity = f"{0.02 + (0.55 if difference else 0.6) * shade[i][j]:.2f}"
            on.add("rect", **box, class_=f"tile {'gain' if good else 'loss'}", fill_opacity=opacity)
            if round(value, 1):
                shown = _count(value, difference)
                on.text(left + cell * (j + 0.5), top + cell * (i + 0.5) + 4, shown, "cell", "middle")
    return str(on)


def _count(value: float, signed: bool) -> str:
    shown = f"{value:{'+' * signed}.{0 if abs(value) >= 10 else 1}f}"
    return shown.removesuffix(".0").replace("-", "−")


def _described(matrix: np.ndarray, names: Sequence[str], difference: bool) -> str:
    """Describes the largest entries off the diagonal in words."""
    beside = matrix * (1 - np.eye(len(matrix)))
    order = (-np.abs(beside)).argsort(axis=None, kind="stable")[:3].tolist()
    pairs = [(k // len(names), k % len(names)) for k in order]
    description = "; ".join(
        f"{names[i]} taken for {names[j]}: {_count(float(beside[i, j]), difference)}" for i, j in pairs if beside[i, j]
    )
    return f"Largest off the diagonal: {description or 'none'}."


def _pixels(name: str, title: str, matrix: np.ndarray, difference: bool) -> str:
    """Draws many classes as one pixel per entry, darker for larger values; mid-grey is 0 in a difference."""
    shade = shading(matrix, difference)
    grey = 128 - 127 * shade * np.sign(matrix) if difference else 255 * (1 - shade)
    picture = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    on = Drawing(name, 400, 420, title, "Rows true, columns predicted; " + (
        "dark: more than before, light: less." if difference else "dark: a large share of the row."
    ))  # fmt: skip
    on.text(0, 12, "predicted →   true ↓", "small")
    on.add("image", x=0, y=18, width=400, height=400, href=data_uri(picture), style="image-rendering:pixelated")
    return str(on)


def gain_tile(mean: float, kind: FigureKind, tip: str, significant: bool, chosen: bool) -> Tile:
    """Returns a field that shows a gain; its colour says whether that is an improvement."""
    return Tile(kind.sign * mean, kind.difference(mean), tip, significant, chosen)
