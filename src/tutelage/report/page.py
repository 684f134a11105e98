"""Renders the report as one self-contained HTML page without scripts."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from tutelage.report.document import Figure, Report, Table, Text
from tutelage.runtime.text import printable

_HERE = Path(__file__).parent


def page(report: Report) -> str:
    """Returns the report as HTML."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, finalize=_shown,
    )  # fmt: skip
    environment.tests |= {
        kind.__name__.lower(): lambda block, kind=kind: isinstance(block, kind) for kind in (Text, Figure, Table)
    }
    environment.filters["drawn"] = lambda figure: Markup(figure.html)  # built by our own drawings, which escape
    style = Markup((_HERE / "page.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html").render(report=report, style=style)


def _shown(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
