"""Draws SVG with a title and a description, coloured by a style sheet."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from tutelage.runtime.text import html_text

_WIDEST = 480  # width that is readable on a phone


class Drawing:
    """An SVG drawing: elements in the order in which they are painted.

    Args:
        name: unique on the page.
        width: in units; on the page it fills its column, up to 1.6 times this width.
        height: in units.
        title: title of the drawing.
        description: its content as text, for screen readers.
    """

    def __init__(self, name: str, width: float, height: float, title: str, description: str):
        self.name, self.width, self.height = name, width, height
        self.title, self.description = title, description
        self.parts: list[str] = []

    def add(self, tag: str, content: str = "", tip: str = "", **attributes: str | float | None) -> None:
        """Adds an element; ``class_`` stands for class, ``stroke_width`` for stroke-width; ``tip`` is its tooltip."""
        written = "".join(
            f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
            for key, value in attributes.items()
            if value is not None
        )
        inside = f"<title>{html_text(tip)}</title>" * bool(tip) + html_text(content)
        self.parts.append(f"<{tag}{written}>{inside}</{tag}>" if inside else f"<{tag}{written}/>")

    def text(
        self,
        x: float,
        y: float,
        content: str,
        class_: str | None = None,
        anchor: str | None = None,
        turned: bool = False,
    ) -> None:
        """Adds text whose base line starts (or, by ``anchor``, ends or has its middle) at (x, y)."""
        transform = f"rotate(-90 {_value(x)} {_value(y)})" if turned else None
        self.add("text", content, x=x, y=y, class_=class_, text_anchor=anchor, transform=transform)

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
        """Adds a straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)

    def path(self, points: Sequence[tuple[float, float]], class_: str, closed: bool = False) -> None:
        """Adds a line through points."""
        written = "L".join(f"{_value(x)} {_value(y)}" for x, y in points)
        self.add("path", d=f"M{written}{'Z' if closed else ''}", class_=class_)

    def mark(self, x: float, y: float, role: str, size: float = 4.5, tip: str = "", open_: bool = False) -> None:
        """Adds a role's marker; each role has its own shape, so that colours are not needed."""
        class_ = f"mark {role}" + " open" * open_
        s = size
        corners = {
            "teacher": [(0, -s * 1.2), (s * 1.1, s * 0.8), (-s * 1.1, s * 0.8)],
            "control": [(-s * 0.9, -s * 0.9), (s * 0.9, -s * 0.9), (s * 0.9, s * 0.9), (-s * 0.9, s * 0.9)],
            "other": [(0, -s * 1.2), (s * 1.2, 0), (0, s * 1.2), (-s * 1.2, 0)],
        }.get(role)
        if corners is None:
            self.add("circle", tip=tip, cx=x, cy=y, r=s, class_=class_)
        else:
            written = " ".join(f"{_value(x + dx)},{_value(y + dy)}" for dx, dy in corners)
            self.add("polygon", tip=tip, points=written, class_=class_)

    def alone(self, style: str) -> str:
        """Returns a self-contained document with its style sheet."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:.0f} {self.height:.0f}" role="img">'
            f"<title>{html_text(self.title)}</title><desc>{html_text(self.description)}</desc>"
            f"<style>{style}</style>{''.join(self.parts)}</svg>\n"
        )

    def __str__(self) -> str:
        """Returns the element for a page; a wide one in a scrollable region."""
        narrow = self.width <= _WIDEST
        least = "" if narrow else f";min-width:{_value(self.width * 0.8)}px"
        drawn = (
            f'<svg viewBox="0 0 {_value(self.width)} {_value(self.height)}" role="img" '
            f'aria-labelledby="{self.name}-t {self.name}-d" style="max-width:{_value(self.width * 1.6)}px{least}">'
            f'<title id="{self.name}-t">{html_text(self.title)}</title>'
            f'<desc id="{self.name}-d">{html_text(self.description)}</desc>{"".join(self.parts)}</svg>'
        )
        if narrow:
            return drawn
        return f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{self.name}-t">{drawn}</div>'


def _value(value: str | float) -> str:
    return html_text(value) if isinstance(value, str) else f"{round(value, 1):g}"


@dataclass(frozen=True)
class Scale:
    """Maps values to positions, linearly or logarithmically."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Returns the position of a value."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Returns round values within the range."""
        if not self.log:
            return linear_ticks(self.low, self.high, count)
        tens = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5)):
            found = [f * 10.0**t for t in tens for f in factors if self.low <= f * 10.0**t <= self.high]
            if len(found) >= 3:
                break
        return found or [self.low, self.high]


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about ``count`` multiples of 1, 2 or 5 times a power of ten in [low, high]."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.85)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def around(values: Sequence[float], log: bool = False, share: float = 0.06, least: float = 1e-3) -> tuple[float, float]:
    """Returns a range that contains all values, with a margin."""
    low, high = min(values), max(values)
    if log:
        factor = max((high / low) ** (2 * share), 1.5)
        return low / factor, high * factor
    more = max((high - low) * share, least)
    return low - more, high + more


@dataclass(frozen=True)
class Axes:
    """Two scales with a frame, ticks and names."""

    x: Scale
    y: Scale

    def draw(
        self, on: Drawing, x_name: str, y_name: str, x_text: Callable[[float], str], y_text: Callable[[float], str],
        x_ticks: int = 5,
    ) -> None:  # fmt: skip
        """Draws grid lines, their values and both names."""
        left, bottom, top = self.x.start, self.y.start, self.y.end
        for value in self.y.ticks():
            on.line(left, self.y(value), self.x.end, self.y(value), "grid")
            on.text(left - 6, self.y(value) + 4, y_text(value), anchor="end")
        for value in self.x.ticks(x_ticks):
            on.line(self.x(value), bottom, self.x(value), bottom + 4, "axis")
            on.text(self.x(value), bottom + 17, x_text(value), anchor="middle")
        on.line(left, bottom, self.x.end, bottom, "axis")
        on.text((left + self.x.end) / 2, bottom + 34, x_name, "name", "middle")
        on.text(left, top - 10, y_name, "name", "start" if left < 60 else "middle")


def short(value: float) -> str:
    """Formats a number with a unit prefix: 25450 → 25.4k."""
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:g}"


def data_uri(picture: Image.Image) -> str:
    """Returns an image as a data URI with a PNG."""
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
