"""Draws softened distributions: a network's outputs for a few images, and softmax(z / T) of given logits."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from tutelage.report.svg import Axes, Drawing, Scale, data_uri

_MARGIN, _HEAD, _SIDE, _GAP = 24.0, 92.0, 64.0, 26.0
_BAR, _HIGH, _STEP = 12.0, 70.0, 118.0  # a class's width, the height of probability 1, from example to example
_MOST = 10  # classes of an example that are drawn
_SHADES = ("#0b2447", "#1f4e8c", "#4379b8", "#7aa3d2", "#a9c4e4")
_DASHES = (None, "9 4", "4 3", "9 3 2 3", "2 3")
_STYLE = (
    "text{font:14px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1a2027}"
    ".title{font-size:20px;font-weight:600}.muted,.name{fill:#59636f}.small{font-size:11px;fill:#59636f}"
    ".track{fill:#f1f3f6}.other{fill:#7aa3d2}.true{fill:#0b2447}.grid{stroke:#dde2e8}.axis{stroke:#59636f}"
    "path{fill:none;stroke-width:2.5}image{image-rendering:pixelated}"
)


@dataclass(frozen=True)
class SoftenedExamples:
    """Examples and a network's logits for them.

    Attributes:
        images: [n, 1 or 3, H, W] in [0, 1].
        labels: labels [n].
        logits: [n, C].
        names: names of the C classes.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    names: Sequence[str]


def answers_picture(shown: SoftenedExamples, temperatures: Sequence[float], title: str) -> str:
    """Draws each example with its probabilities at every temperature, a bar per class, the true class dark.

    Of more than ten classes, each example's ten most probable ones are drawn.

    Args:
        shown: the examples.
        temperatures: one per column.
        title: title of the drawing.

    Returns:
        A whole SVG document.
    """
    drawn = min(_MOST, len(shown.names))
    column = drawn * _BAR + _GAP
    width = 2 * _MARGIN + _SIDE + _GAP + column * len(temperatures) - _GAP
    height = _HEAD + _STEP * len(shown.images) + _MARGIN / 2
    columns = ", ".join(f"{t:g}" for t in temperatures)
    description = (
        f"A column per temperature (T = {columns}), a bar per class; full height is probability 1; dark: true class."
    )
    on = Drawing("answers", max(width, 560.0), height, title, description)
    on.add("rect", width=on.width, height=height, fill="#fff")
    on.text(_MARGIN, 34, title, "title")
    on.text(_MARGIN, 56, "A bar per class, full height is probability 1, the true class is dark.", "muted")
    lefts = [_MARGIN + _SIDE + _GAP + column * k for k in range(len(temperatures))]
    for left, temperature in zip(lefts, temperatures, strict=True):
        on.text(left, _HEAD - 8, f"T = {temperature:g}")
    for row in range(len(shown.images)):
        top = _HEAD + 8 + _STEP * row
        _example(on, shown, row, top)
        classes = sorted(shown.logits[row].topk(drawn).indices.tolist())
        for left, temperature in zip(lefts, temperatures, strict=True):
            _bars(on, shown, row, classes, temperature, left, top)
    return document(on)


def _example(on: Drawing, shown: SoftenedExamples, row: int, top: float) -> None:
    pixels = (shown.images[row] * 255).round().byte().permute(1, 2, 0)
    picture = Image.fromarray(pixels.expand(-1, -1, 3).contiguous().numpy())
    on.add("image", href=data_uri(picture), x=_MARGIN, y=top, width=_SIDE, height=_SIDE)
    on.text(_MARGIN, top + _SIDE + 18, f"true: {shown.names[int(shown.labels[row])][:8]}", "muted")


def _bars(
    on: Drawing, shown: SoftenedExamples, row: int, classes: Sequence[int], temperature: float, left: float, top: float
) -> None:
    """Draws one example at one temperature, with the first letters of the classes' names below the bars."""
    p = (shown.logits[row].double() / temperature).softmax(0).tolist()
    on.add("rect", x=left, y=top, width=_BAR * len(classes), height=_HIGH, class_="track")
    for place, c in enumerate(classes):
        x, high = left + _BAR * place, _HIGH * p[c]
        look = "true" if c == int(shown.labels[row]) else "other"
        tip = f"{shown.names[c]}: {p[c]:.2%} at T = {temperature:g}"
        if high >= 0.05:  # smaller heights would be rounded to 0
            on.add("rect", x=x + 1, y=top + _HIGH - high, width=_BAR - 2, height=high, class_=look, tip=tip)
        on.text(x + _BAR / 2, top + _HIGH + 13, shown.names[c][:2], "small", "middle")


def curve_picture(logits: Tensor, temperatures: Sequence[float]) -> str:
    """Draws softmax(z / T) as a line per temperature, classes in the order of ``logits``.

    Args:
        logits: [C], C at least 2, float64.
        temperatures: one per line.

    Returns:
        A whole SVG document.
    """
    found = {t: (logits / t).softmax(0).tolist() for t in temperatures}
    title = "The higher the temperature, the smoother a softmax"
    description = "; ".join(f"T = {t:g}: " + ", ".join(f"{p:.3f}" for p in row) for t, row in found.items())
    on = Drawing("curve", 640.0, 400.0, title, description)
    on.add("rect", width=on.width, height=on.height, fill="#fff")
    on.text(_MARGIN, 34, title, "title")
    z = logits.tolist()
    highest = max(p for row in found.values() for p in row)
    axes = Axes(Scale(0, len(z) - 1, 64, 500), Scale(0, max(0.1, highest) * 1.05, 340, 84))
    axes.draw(on, "logit z of the class", "softmax(z / T)", lambda _: "", lambda y: f"{y:.1f}")
    for place, one in enumerate(z):
        on.text(axes.x(place), 357, f"{one:g}".replace("-", "−"), anchor="middle")
    for k, (t, row) in enumerate(found.items()):
        shade, dash, y = _SHADES[k % len(_SHADES)], _DASHES[k % len(_DASHES)], 96 + 24 * k
        points = [(axes.x(place), axes.y(p)) for place, p in enumerate(row)]
        way = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        on.add("path", d=way, stroke=shade, stroke_dasharray=dash, tip=f"T = {t:g}")
        for (x, height), p in zip(points, row, strict=True):
            on.add("circle", cx=x, cy=height, r=4, fill=shade, tip=f"{p:.3f} at T = {t:g}")
        on.add("path", d=f"M520 {y}L556 {y}", stroke=shade, stroke_dasharray=dash)
        on.text(566, y + 5, f"T = {t:g}")
    return document(on)


def document(on: Drawing) -> str:
    """Returns a drawing as a self-contained SVG document."""
    return on.alone(_STYLE)
