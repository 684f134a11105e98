"""Texts with their labels as they stand in files: tables (TSV, CSV, JSONL, parquet) and folders of text files."""

import codecs
import csv
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tutelage.data.parquet import ParquetTable
from tutelage.errors import TutelageError, nearest
from tutelage.runtime.file_sizes import check_size

log = logging.getLogger(__name__)

SUFFIXES = (".tsv", ".csv", ".jsonl", ".parquet", ".txt")
_SHOWN = 40  # characters of a value in a message


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table.

    Args:
        text: the text.
        pair: a second text; None without.
        label: the label; None: not read.
        key: an identifier; rows are sorted by it, so that their order in the file does not matter; None: as they stand.
        header: the names of all columns, of TSV and CSV files whose first line does not have them.
        short: whether lines with too few columns are left out, with a line in the log; they are refused otherwise.
    """

    text: str = "text"
    pair: str | None = None
    label: str | None = "label"
    key: str | None = None
    header: Sequence[str] | None = None
    short: bool = False

    @property
    def wanted(self) -> list[str]:
        """Returns the names of the columns that are read."""
        return [name for name in (self.text, self.pair, self.label, self.key) if name is not None]


@dataclass(frozen=True)
class Rows:
    """Texts of one split.

    Attributes:
        texts: a string each, or a pair of strings; or a list of words.
        labels: as they stand in the file; None where there is none.
        places: row → file and line, for messages.
        names: of the classes, where the file says them.
    """

    texts: list[Any]
    labels: list[Any]
    places: Callable[[int], str]
    names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.texts)


def read(paths: Sequence[Path], columns: Columns, encoding: str, classes: Sequence[str] | None = None) -> Rows:
    """Reads files and folders of the same kind, one after the other.

    Args:
        paths: tables; or folders with a folder of ``.txt`` files for each class.
        columns: what the columns are called.
        encoding: of the characters; parquet files have their own.
        classes: the folders to read; None: all.

    Raises:
        TutelageError: a file is missing, damaged or empty, has another encoding, or lacks a column; names the line.
    """
    return joined_rows([_read(path, columns, encoding, classes) for path in paths])


def read_table(paths: Sequence[Path], columns: Columns, encoding: str) -> Rows:
    """Reads tab-separated values of files with any ending.

    Raises:
        TutelageError: see :func:`read`.
    """
    parts = []
    for path in paths:
        found, places = _column_by_column(path, _tsv(path, columns, encoding), columns)
        parts.append(_sorted(path, found, places, columns, None))
    return joined_rows(parts)


def joined_rows(parts: Sequence[Rows]) -> Rows:
    """Returns the rows of several files, one after the other."""
    if len(parts) == 1:
        return parts[0]
    ends = [sum(len(part) for part in parts[: number + 1]) for number in range(len(parts))]

    def place(row: int) -> str:
        number = next(number for number, end in enumerate(ends) if row < end)
        return parts[number].places(row - ends[number] + len(parts[number]))

    texts = [text for part in parts for text in part.texts]
    labels = [label for part in parts for label in part.labels]
    return Rows(texts, labels, place, parts[0].names)


def _read(path: Path, columns: Columns, encoding: str, classes: Sequence[str] | None) -> Rows:
    if path.is_dir():
        return _folder(path, encoding, classes)
    if not path.is_file():
        raise TutelageError(f"there is no file or folder {path}")
    names = None
    if path.suffix == ".parquet":
        table = ParquetTable([path], columns.wanted)
        found = {name: table.table.column(name).to_pylist() for name in columns.wanted}
        names = None if columns.label is None else table.names(columns.label)
        places = [f"{path}, row {row}" for row in range(len(table))]
    elif (reader := {".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl, ".txt": _lines}.get(path.suffix)) is not None:
        check_size(path, 4 * path.stat().st_size)
        found, places = _column_by_column(path, reader(path, columns, encoding), columns)
    else:
        raise TutelageError(f"{path}: expected a folder, or a file that ends in {', '.join(SUFFIXES)}")
    return _sorted(path, found, places, columns, names)


def _column_by_column(
    path: Path, lines: Iterator[tuple[int, Mapping[str, Any]]], columns: Columns
) -> tuple[dict[str, list[Any]], list[str]]:
    found: dict[str, list[Any]] = {name: [] for name in columns.wanted}
    places = []
    for number, line in lines:
        for name, values in found.items():
            if name not in line:
                raise TutelageError(f"{path}, line {number}: no column {name!r}; {nearest(name, line)}")
            values.append(line[name])
        places.append(f"{path}, line {number}")
    return found, places


def _sorted(
    path: Path, found: dict[str, list[Any]], places: list[str], columns: Columns, names: list[str] | None
) -> Rows:
    if not places:
        raise TutelageError(f"{path} holds no text")
    order = list(range(len(places)))
    if columns.key is not None:
        keys = [str(key) for key in found[columns.key]]
        whole = all(key.lstrip("-").isdigit() for key in keys)
        order.sort(key=(lambda row: int(keys[row])) if whole else keys.__getitem__)
        for one, other in pairwise(order):
            if keys[one] == keys[other]:
                raise TutelageError(f"{places[other]}: the key {keys[other]!r} is that of {places[one]} as well")
    texts: list[Any] = [found[columns.text][row] for row in order]
    for row, text in zip(order, texts, strict=True):
        _check_text(text, places[row], columns.text)
    if columns.pair is not None:
        seconds = [found[columns.pair][row] for row in order]
        for row, text in zip(order, seconds, strict=True):
            _check_text(text, places[row], columns.pair)
        texts = list(zip(texts, seconds, strict=True))
    labels = [None] * len(texts) if columns.label is None else [found[columns.label][row] for row in order]
    return Rows(texts, labels, lambda row: places[order[row]], names)


def _check_text(text: Any, place: str, column: str) -> None:
    if not isinstance(text, str):
        raise TutelageError(
            f"{place}: column {column!r} is {text!r:.{_SHOWN}} ({type(text).__name__}); expected a text"
        )
    if not text.strip():
        raise TutelageError(f"{place}: column {column!r} is an empty text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TutelageError(
            f"{place}: column {column!r} has half of a surrogate pair, which is no character"
        ) from error


def lines_of(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Yields the number of each line, from 1, and the line without its end.

    Raises:
        TutelageError: the file has another encoding.
    """
    try:
        with open(path, encoding=encoding, newline="\n") as file:
            for number, line in enumerate(file, 1):
                yield number, line.rstrip("\r\n").removeprefix("\ufeff" if number == 1 else "")
    except UnicodeDecodeError as error:
        raise _undecoded(path, encoding, error) from error
    except LookupError as error:
        raise TutelageError(f"data.encoding={encoding}: Python knows no such encoding") from error
    except OSError as error:
        raise TutelageError(f"{path} can't be read: {error.strerror}") from error


def _undecoded(path: Path, encoding: str, error: UnicodeDecodeError) -> TutelageError:
    advice, place = "data.encoding=latin-1 reads any byte", "a character"
    with open(path, "rb") as file:  # the text file was decoded in blocks of many lines
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                advice = "it begins as files in data.encoding=utf-16 do"
            try:
                line.decode(encoding)
            except UnicodeDecodeError as found:
                place, error = f"line {number}", found
                break
    byte = error.object[error.start]
    return TutelageError(f"{path}, {place}: the byte 0x{byte:02x} is none of {encoding}; {advice}")


def _names(path: Path, first: list[str] | None, columns: Columns) -> list[str]:
    names = list(columns.header) if columns.header is not None else first
    if names is None:
        raise TutelageError(f"{path} is empty")
    for name in columns.wanted:
        if name not in names:
            raise TutelageError(
                f"{path} has no column {name!r}; {nearest(name, names)} (data.columns=[…] names the columns of a file "
                "whose first line does not)"
            )
        if names.count(name) > 1:
            raise TutelageError(f"{path} has {names.count(name)} columns {name!r}; expected one")
    return names


def _tsv(path: Path, columns: Columns, encoding: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Reads tab-separated values, in which a quote is a character like any other."""
    return _table(path, ((number, line.split("\t")) for number, line in lines_of(path, encoding)), columns)


def _csv(path: Path, columns: Columns, encoding: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Reads comma-separated values, quoted where they have commas, quotes or line ends."""
    limit = csv.field_size_limit(2**31 - 1)  # of the process; texts may be long
    try:
        reader = csv.reader((f"{line}\n" for _, line in lines_of(path, encoding)), strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise TutelageError(f"{path}, line {reader.line_num}: not comma-separated values: {error}") from error
    finally:
        csv.field_size_limit(limit)
    return _table(path, iter(rows), columns)


def _table(
    path: Path, rows: Iterator[tuple[int, list[str]]], columns: Columns
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    first = None if columns.header is not None else next(rows, (0, None))[1]
    names = _names(path, first, columns)
    left_out = 0
    for number, row in rows:
        if columns.short and len(row) < len(names):
            left_out += 1
        elif len(row) != len(names):
            raise TutelageError(
                f"{path}, line {number}: {len(row)} columns; expected {len(names)} ({', '.join(names)})"
            )
        else:
            yield number, dict(zip(names, row, strict=True))
    if left_out:
        log.warning("%s: %d lines with fewer than %d columns are left out", path, left_out, len(names))


def _jsonl(path: Path, columns: Columns, encoding: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in lines_of(path, encoding):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TutelageError(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(found, dict):
            raise TutelageError(f"{path}, line {number}: expected an object; found {type(found).__name__}")
        yield number, found


def _lines(path: Path, columns: Columns, encoding: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Reads a text a line; empty lines are left out."""
    for number, line in lines_of(path, encoding):
        if line.strip():
            yield number, {columns.text: line}


def _folder(root: Path, encoding: str, classes: Sequence[str] | None) -> Rows:
    """Reads ``<root>/<class>/*.txt``."""
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for name in classes or ():
        if name not in names:
            raise TutelageError(f"data.class_names: {root} has no folder {name!r}; {nearest(name, names)}")
    chosen = names if classes is None else list(classes)
    files = [path for name in chosen for path in sorted((root / name).glob("*.txt"))]
    if not files:
        raise TutelageError(
            f"{root} holds no text: expected a folder of .txt files for each class; folders found: "
            f"{', '.join(names) or 'none'}"
        )
    texts = []
    for path in files:
        texts.append("\n".join(line for _, line in lines_of(path, encoding)))
        _check_text(texts[-1], str(path), "text")
    return Rows(texts, [path.parent.name for path in files], lambda row: str(files[row]), list(chosen))
