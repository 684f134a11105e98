"""Makes text of unknown origin safe to show: names of folders, headers of files, messages of errors.

A terminal obeys escape sequences, a spreadsheet runs cells that begin like a formula, and markdown lets HTML through.
Each output has its one function here.
"""

import codecs
import html
import io
import re
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

# C0 but tab and newline, DEL, C1, separators of lines, marks that turn the direction of text, halves of pairs.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")

_PLAIN = str.maketrans({
    "\u2010": "-", "\u2013": "-", "\u2014": "-", "\u2212": "-", "…": "...", "×": "x", "±": "+-", "≤": "<=", "≥": ">=",
    "→": "->", "·": "*", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "²": "^2",
})  # fmt: skip


def in_its_letters(stream: TextIO) -> None:
    """Makes a stream of few letters (ASCII, Latin-1) take text with others: ``-`` for a dash, ``>=`` for ``≥``."""
    if str(stream.encoding).lower().replace("-", "") != "utf8" and hasattr(stream, "reconfigure"):
        codecs.register_error("tutelage.plain", _plain)
        stream.reconfigure(errors="tutelage.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = unicodedata.normalize("NFKD", error.object[error.start : error.end].translate(_PLAIN))
    bare = "".join(one for one in text if not unicodedata.combining(one))
    return bare.encode("ascii", "replace").decode("ascii"), error.end


def printable(text: object) -> str:
    r"""``text`` for a terminal, a log or a page: control characters as ``\x1b``; tabs and newlines stay."""
    return _CONTROLS.sub(_escaped, str(text))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def in_a_line(text: object) -> str:
    """The same without newlines and tabs, for a cell of a table."""
    return " ".join(printable(text).split("\n")).replace("\t", " ")


def as_text(parts: "Iterable[RenderableType]") -> str:
    """Returns tables and sentences of rich as plain text of up to 160 columns, as they are printed to no terminal."""
    from rich.console import Console  # which takes longer to import than all of the above

    console = Console(file=io.StringIO(), width=160)
    with console.capture() as text:
        for part in parts:
            console.print(part)
    return text.get()


def html_text(text: object) -> str:
    """Escapes text for HTML or SVG, between tags or in an attribute."""
    return html.escape(printable(text))


def csv_cell(value: Any) -> Any:
    """A value of a CSV file: text that a spreadsheet would take for a formula has an apostrophe before it."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def markdown_text(text: object) -> str:
    """Text in markdown: no HTML, no links and no pictures come of it."""
    return re.sub(r"[\\`\[\]|]", r"\\\g<0>", printable(text)).replace("&", "&amp;").replace("<", "&lt;")
