"""Defines the parts of a report, independent of its format: sections, tables, texts, figures."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.runtime.text import csv_cell, in_a_line, markdown_text
from tutelage.tasks.figure_kinds import FigureKind

MISSING = "–"
Format = Callable[[Any], str]


@dataclass(frozen=True)
class Text:
    """One or more sentences; ``kind``: plain, lead (the answer) or note (a caveat); ``label``: their topic."""

    text: str
    kind: str = "plain"
    label: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing, as the HTML of an ``<svg>`` or of images with descriptions."""

    name: str
    title: str
    html: str
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """A table of plain values.

    Args:
        name: name of its CSV file and anchor on the page; lower case, no spaces.
        caption: what it shows.
        columns: heading → format of values on the page; the CSV has them unformatted.
        rows: one value per column, the first being the row's heading; None is written as a dash.
        shown: greatest number of rows on the page; the CSV has all.
        folded: whether the page shows it collapsed.
    """

    name: str
    caption: str
    columns: Mapping[str, Format]
    rows: Sequence[Sequence[Any]]
    shown: int = 200
    folded: bool = False

    def written(self) -> list[list[str]]:
        """Returns the rows that are shown, as text."""
        formats = list(self.columns.values())
        return [
            [MISSING if value is None else form(value) for form, value in zip(formats, row, strict=True)]
            for row in self.rows[: self.shown]
        ]

    def words(self) -> list[bool]:
        """Returns for each column whether it has text rather than numbers."""
        return [any(isinstance(value, str) for value in column) for column in zip(*self.rows, strict=True)]

    @property
    def left_out(self) -> str:
        """Returns a sentence on where the other rows are."""
        more = len(self.rows) - self.shown
        return f"{plural(more, 'more row')} in tables/{self.name}.csv." if more > 0 else ""

    def csv(self) -> str:
        """Returns all rows as CSV, unformatted."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([csv_cell(name) for name in self.columns])
        writer.writerows([[csv_cell(value) for value in row] for row in self.rows])
        return out.getvalue()


Block = Text | Figure | Table


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    subtitle: str
    sections: Sequence[Section]

    def tables(self) -> list[Table]:
        """Returns every table, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]


def plural(count: int, what: str) -> str:
    """Returns a count with its noun: ``1 run``, ``2 runs``."""
    return f"{count:,} {what}{'s' * (count != 1)}"


# -- formats of values -----------------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """Returns a value as text; integers with thousands separators."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def percent(value: float) -> str:
    """Formats a fraction in percent: 98.76."""
    return f"{100 * value:.2f}"


def points(value: float) -> str:
    """Formats a difference of fractions in percentage points, with a sign."""
    return f"{round(100 * value, 2) + 0.0:+.2f}".replace("-", "−")


def spread(value: float) -> str:
    """Formats a standard deviation of fractions in percentage points."""
    return f"{100 * value:.2f}"


def number(value: float) -> str:
    """Formats a number with four decimals, or four significant digits from 10 on."""
    if not math.isfinite(value):
        return str(value)
    shown = f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"
    return shown.replace("-", "−")


def value_of(kind: FigureKind) -> Format:
    """Returns how a figure of this kind is written: per cent or a number."""
    return percent if kind.percent else number


def spread_of(kind: FigureKind) -> Format:
    """Returns how a standard deviation of this kind is written."""
    return spread if kind.percent else number


def titled(kind: FigureKind) -> str:
    """Returns the title of a column or an axis: ``accuracy, %``."""
    return f"{kind.title}, %" if kind.percent else kind.title


def probability(p: float) -> str:
    """Formats a p-value."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


# -- markdown --------------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """Returns the report as markdown, with the titles of drawings in their place."""
    parts = [f"# {report.title}", markdown_text(report.subtitle)]
    for section in report.sections:
        parts.append(f"## {section.title}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Text):
        text = markdown_text(block.text)
        content = f"**{block.label}** {text}" if block.label else text
        return {"lead": f"**{content}**", "note": f"> {content}"}.get(block.kind, content)
    if isinstance(block, Figure):
        return f"*(Drawn in index.html: {markdown_text(block.title)}.)* {markdown_text(block.caption)}".rstrip()
    rules = ["---" if words else "---:" for words in block.words() or [True] * len(block.columns)]
    rows = [list(block.columns), rules, *block.written()]
    lines = ["| " + " | ".join(markdown_text(in_a_line(cell)) for cell in row) + " |" for row in rows]
    return "\n".join(
        [f"**{markdown_text(block.caption)}**", "", *lines, *([f"\n{block.left_out}"] if block.left_out else [])]
    )
