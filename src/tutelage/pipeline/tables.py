"""Rows of the tables of `tutelage predict`, and the columns that a network reads of them."""

import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.data.parquet import rows_of
from tutelage.data.text.rows import lines_of
from tutelage.errors import TutelageError, nearest

log = logging.getLogger(__name__)

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_NAMED = 8  # columns in a message


def rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the place of each row, for messages, and its values by column.

    Raises:
        TutelageError: the file is missing, damaged or no table; names the row, and the line of a file of text.
    """
    if not path.is_file():
        raise TutelageError(f"input={path}: there is no such file or folder")
    if path.suffix not in TABLES:
        raise TutelageError(f"input={path}: expected a folder of images, or a file that ends in {', '.join(TABLES)}")
    if path.suffix == ".parquet":
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows_of(path)))
        return
    found = _objects(path) if path.suffix == ".jsonl" else _separated(path)
    for number, (line, row) in enumerate(found):
        where = f"{path}, row {number} (line {line})"
        if not isinstance(row, Mapping):
            raise TutelageError(f"{where}: expected an object with a value for each column")
        if None in row:  # of csv.DictReader: what is left over
            raise TutelageError(f"{where} has more values than the header has names")
        yield where, row


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in lines_of(path, "utf-8"):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line, object_pairs_hook=_once)
        except ValueError as error:
            reason = str(error).partition(": line 1 ")[0]
            raise TutelageError(f"input={path} can't be read as .jsonl: line {number}: {reason}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {twice!r} {names.count(twice)} times; expected it once")
    return found


def _separated(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    lines = (line for _, line in lines_of(path, "utf-8"))
    try:
        reader = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        names = [*(reader.fieldnames or ())]
        if _are_values(names):
            raise TutelageError(
                f"input={path}: its first line, {', '.join(names[:3])} …, consists of numbers; expected the names of "
                "the columns: write a line of them before it"
            )
        if twice := [name for name in names if names.count(name) > 1]:
            raise TutelageError(f"input={path} has {names.count(twice[0])} columns {twice[0]!r}; expected one")
        yield from ((reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise TutelageError(f"input={path} can't be read as {path.suffix}: {error}") from error


def _are_values(names: Sequence[str]) -> bool:
    """Checks whether a header is a row of numbers; 0, 1, 2 … are the names that pandas gives to columns."""
    try:
        _ = [float(name) for name in names]
    except ValueError:
        return False
    return bool(names) and (len(names) < 3 or names != [str(number) for number in range(len(names))])


class Chosen:
    """The columns that a network reads, in its order.

    Args:
        named: those of ``columns=``; None: all of the table.
        known: those that it was trained on; None where its data do not name them.
        path: of the table.
    """

    def __init__(self, named: Sequence[str] | None, known: Sequence[str] | None, path: Path):
        if named is not None and known is not None and named != known and sorted(named) == sorted(known):
            raise TutelageError(
                f"columns={_listed(named)}: the network was trained on these in another order, {_listed(known)}, in "
                "which they are taken by name: leave columns out"
            )
        self.path, self.whole = path, named is None
        self.names = named if named is not None else known

    def of(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Returns the values of a row by column.

        Raises:
            TutelageError: a column is missing; or all should be read, and one is not the network's or the first row's.
        """
        if self.names is None:
            self.names = [*row]
            if len(row) > 1:
                log.info(
                    "%s: the network's file does not name the columns that it was trained on; %d are taken by "
                    "position: %s", self.path, len(row), _listed(self.names),
                )  # fmt: skip
        for name in self.names:
            if name not in row:
                raise TutelageError(f"{where}: no column {name!r}; {nearest(name, row)}")
        if self.whole and len(row) > len(self.names):
            more = next(name for name in row if name not in self.names)
            raise TutelageError(
                f"{where}: column {more!r} is none of those that the network reads, {_listed(self.names)}: "
                "columns=[…] names those to read, in order"
            )
        return {name: row[name] for name in self.names}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")
