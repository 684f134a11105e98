"""Draws curves over epochs, gains with intervals, accuracy against cost, and reliability."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tutelage.report.curves import Band
from tutelage.report.document import number, percent, titled, value_of
from tutelage.report.statistics import Paired
from tutelage.report.svg import Axes, Drawing, Scale, around, short
from tutelage.tasks.figure_kinds import FigureKind

WIDTH = 400.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 16.0, 26.0, 44.0
NAMES = {"teacher": "teacher", "control": "student alone", "student": "distilled student"}


def epoch_chart(
    name: str,
    title: str,
    bands: Mapping[str, Band],
    faint: Sequence[Band],
    y_name: str,
    y_text: Callable[[float], str],
) -> str:
    """Draws curves over epochs.

    Args:
        name: of the drawing.
        title: of it.
        bands: role → band.
        faint: means of other cells, drawn as thin lines behind.
        y_name: name of the quantity.
        y_text: formats its values.
    """
    last = max(max(one.epochs) for one in (*bands.values(), *faint))
    values = [*_late(bands.values(), last, edges=True), *_late(faint, last)]
    description = "; ".join(
        f"{NAMES[role]}: {y_text(one.mean[0])} in epoch {one.epochs[0]}, {y_text(one.mean[-1])} in epoch "
        f"{one.epochs[-1]} ({one.count} run{'s' * (one.count > 1)})"
        for role, one in bands.items()
    )
    height = 270.0
    on = Drawing(name, WIDTH, height + 26, title, description)
    axes = Axes(Scale(0, max(last, 1), _LEFT, WIDTH - _RIGHT), Scale(*around(values), height - _BOTTOM, _TOP))
    axes.draw(on, "epoch", y_name, lambda x: f"{x:g}", y_text, x_ticks=min(5, max(last, 1)))
    for one in faint:
        on.path(_placed(axes, one.epochs, one.mean), "line faint")
    for role, one in bands.items():
        if one.count > 1:
            edge = _placed(axes, one.epochs, one.high) + _placed(axes, one.epochs, one.low)[::-1]
            on.path(edge, f"band {role}", closed=True)
    for role, one in bands.items():
        on.path(_placed(axes, one.epochs, one.mean), f"line {role}")
        step = max(1, len(one.epochs) // 6)
        for x, y in _placed(axes, one.epochs, one.mean)[::-1][::step]:
            on.mark(x, y, role, 3.5)
    _legend(on, [(role, NAMES[role]) for role in bands], height + 10, lines=True)
    return str(on)


def _late(found: Iterable[Band], last: int, edges: bool = False) -> list[float]:
    """Returns the values after the first fifth of the epochs, without the steep start, to set the axis."""
    values = []
    for one in found:
        for place, epoch in enumerate(one.epochs):
            if epoch >= last / 5 or epoch == one.epochs[-1]:
                values += [one.low[place], one.high[place]] if edges else [one.mean[place]]
    return values


def _placed(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    low, high = axes.y.low, axes.y.high
    return [(axes.x(x), axes.y(min(max(y, low), high))) for x, y in zip(xs, ys, strict=True)]


def _legend(on: Drawing, entries: Sequence[tuple[str, str]], y: float, lines: bool = False) -> None:
    x = 12.0
    for role, label in entries:
        if x > 12 and x + 18 + 7 * len(label) > on.width:
            x, y, on.height = 12.0, y + 20, on.height + 20
        if lines:
            on.line(x - 8, y, x + 12, y, f"line {role}")
        on.mark(x + 2, y, role, 4)
        on.text(x + 18, y + 4, label)
        x += 38 + 7 * len(label)


@dataclass(frozen=True)
class Row:
    """A line of :func:`forest`."""

    label: str
    found: Paired
    significant: bool
    chosen: bool


def forest(name: str, title: str, kind: FigureKind, rows: Sequence[Row], others: Sequence[Row] = ()) -> str:
    """Draws each cell's mean gain with its interval; the chosen cell is marked.

    Args:
        name: of the drawing.
        title: of it.
        kind: of the figure.
        rows: to be drawn.
        others: rows of further drawings on the same scale.
    """
    step, top = 36.0, 6.0
    ends = [(row.found.low, row.found.high, row.found.mean) for row in (*rows, *others)]
    values = [value for of_row in ends for value in of_row if value is not None] + [0.0]
    height = top + step * len(rows) + 50
    description = "; ".join(
        f"{row.label}: {kind.difference(row.found.mean)}" for row in rows[:12] if row.found.mean is not None
    ) + ("; further ones are in the table of cells." if len(rows) > 12 else ".")
    on = Drawing(name, WIDTH, height, title, f"Mean gains in {_unit(kind)}: {description}")
    bottom = top + step * len(rows)
    x = Scale(*around(values), 22, WIDTH - 22)
    for tick in x.ticks():
        for place in range(len(rows)):  # not through the labels
            y = top + step * place + 25
            on.line(x(tick), y - 8, x(tick), y + 8, "zero" if tick == 0 else "grid")
        on.text(x(tick), bottom + 17, kind.difference(tick) if tick else "0", anchor="middle")
    on.text(WIDTH / 2, bottom + 38, f"gain in {_unit(kind)}", "name", "middle")
    for place, row in enumerate(rows):
        y = top + step * place + 25
        signs = " *" * row.significant
        mean = "no pair" if row.found.mean is None else kind.difference(row.found.mean)
        figure = f": {mean}{signs}"
        label = shortened(row.label, int((WIDTH - 24) / (7.8 if row.chosen else 6.8)) - len(figure))
        on.text(12, y - 9, label + figure, "strong" if row.chosen else None)
        if row.found.mean is None:
            continue
        role = "student" if row.chosen else "other"
        if row.found.low is not None and row.found.high is not None:
            on.line(x(row.found.low), y, x(row.found.high), y, f"whisker {role}")
            for end in (row.found.low, row.found.high):
                on.line(x(end), y - 4, x(end), y + 4, f"whisker {role}")
        on.mark(x(row.found.mean), y, role, 4.5, open_=not row.significant and not row.chosen)
    return str(on)


def shortened(text: str, most: int) -> str:
    """Returns a text of at most ``most`` characters; of a longer one the beginning."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _unit(kind: FigureKind) -> str:
    unit = "points" if kind.percent else "lower is better" if kind.mode == "min" else ""
    return f"test {kind.title} over the student alone" + (f", {unit}" if unit else "")


@dataclass(frozen=True)
class Point:
    """A network in :func:`against_cost`: its cost, its headline on test, and one sd of that over seeds."""

    role: str
    label: str
    cost: float
    value: float
    sd: float = 0.0


def against_cost(name: str, title: str, x_name: str, kind: FigureKind, found: Sequence[Point]) -> str:
    """Draws the headline on test over the logarithm of a cost."""
    height = 270.0
    description = "; ".join(f"{one.label}: {_value(kind, one.value)} at {short(one.cost)}" for one in found[:12])
    on = Drawing(name, WIDTH, height + 26, title, description)
    spread = [one.value + sign * one.sd for one in found for sign in (-1, 1)]
    axes = Axes(
        Scale(*around([one.cost for one in found], log=True), _LEFT, WIDTH - _RIGHT, log=True),
        Scale(*around(spread, share=0.1, least=2e-3), height - _BOTTOM, _TOP),
    )
    axes.draw(
        on, f"{x_name} (logarithmic)", f"test {titled(kind)}", short, _percent_tick(axes) if kind.percent else short
    )
    for one in sorted(found, key=lambda one: one.role == "student"):
        x, y = axes.x(one.cost), axes.y(one.value)
        if one.sd:
            on.line(x, axes.y(one.value - one.sd), x, axes.y(one.value + one.sd), f"whisker {one.role}")
        tip = f"{one.label}: {_value(kind, one.value)}, {one.cost:,.0f}"
        on.mark(x, y, one.role, tip=tip, open_=one.role == "other")
    roles = {one.role: NAMES.get(one.role, "other") for one in found}
    _legend(on, [*roles.items()], height + 10)
    return str(on)


def _value(kind: FigureKind, value: float) -> str:
    return f"{value_of(kind)(value)}{' %' if kind.percent else ''}"


def _percent_tick(axes: Axes) -> Callable[[float], str]:
    first, second = [*axes.y.ticks(), 0.0, 0.0][:2]
    step = abs(second - first) + 1e-9
    digits = 0 if step >= 0.01 else 1 if step >= 0.001 else 2
    return lambda value: f"{100 * value:.{digits}f}"


@dataclass(frozen=True)
class Bin:
    """Examples of similar confidence: mean confidence, accuracy, share of all; ``few``: too few to be reliable."""

    confidence: float
    accuracy: float
    share: float
    few: bool = False


def reliability(name: str, title: str, role: str, bins: Sequence[Bin | None], ece: float) -> str:
    """Draws accuracy against confidence with the diagonal of perfect calibration, and the examples per bin below.

    Args:
        name: of the drawing.
        title: of it.
        role: role of the network.
        bins: bins of equal width over [0, 1]; None for empty ones.
        ece: expected calibration error, written into the drawing.
    """
    width, height, strip = WIDTH, 340.0, 40.0
    description = "; ".join(f"{percent(b.confidence)} % sure: {percent(b.accuracy)} % right" for b in bins if b)
    on = Drawing(name, width, height, title, f"ECE {number(ece)}. {description}")
    axes = Axes(Scale(0, 1, _LEFT, width - _RIGHT), Scale(0, 1, height - _BOTTOM - strip, _TOP))
    low = height - _BOTTOM
    for value in (0, 0.25, 0.5, 0.75, 1):
        on.line(_LEFT, axes.y(value), width - _RIGHT, axes.y(value), "grid")
        on.text(_LEFT - 6, axes.y(value) + 4, f"{100 * value:.0f}", anchor="end")
        on.text(axes.x(value), low + 16, f"{100 * value:.0f}", anchor="middle")
    most = max((b.share for b in bins if b), default=1.0)
    for place, one in enumerate(bins):
        if one is None:
            continue
        left, wide = axes.x(place / len(bins)), axes.x(1 / len(bins)) - axes.x(0) - 1
        on.add(
            "rect", tip=f"confidence {percent(one.confidence)} %, accuracy {percent(one.accuracy)} %",
            x=left, y=axes.y(one.accuracy), width=wide, height=axes.y(0) - axes.y(one.accuracy),
            class_=f"bar {role}{' few' * one.few}",
        )  # fmt: skip
        tall = (strip - 8) * one.share / most
        tip = f"{percent(one.share)} % of examples"
        on.add("rect", tip=tip, x=left, y=low - tall, width=wide, height=tall, class_="bar count")
    on.line(axes.x(0), axes.y(0), axes.x(1), axes.y(1), "diagonal")
    on.line(_LEFT, low, width - _RIGHT, low, "axis")
    on.text(_LEFT, _TOP - 10, "accuracy, %", "name", "start")
    on.text(_LEFT + 8, _TOP + 16, f"ECE {number(ece)}", "strong")
    on.text((_LEFT + width - _RIGHT) / 2, low + 33, "confidence, %; below: share of examples", "name", "middle")
    return str(on)
