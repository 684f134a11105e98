"""Assigns columns of a table of outputs to classes: by the columns' names, not by their places."""

import logging
import re
from collections.abc import Sequence

from tutelage.errors import TutelageError, nearest

log = logging.getLogger(__name__)


def class_order(columns: Sequence[str], classes: Sequence[str], path: str) -> list[int]:
    """Returns for each class the index of its column in ``columns``.

    Columns that are called as the classes are taken by name. Else columns that count, ``0``, ``1`` … or ``p0``,
    ``p1`` …, from 0 or from 1, are taken by number. Columns of other names are taken by place, with a warning.

    Args:
        columns: names in the file, without the key's.
        classes: names of the data's classes, in the order of their labels.
        path: what errors call the file.

    Raises:
        TutelageError: another number of columns than classes, a name that comes twice, names of some of the classes
            only, or numbers with a gap.
    """
    names = [name.strip() for name in columns]
    if len(names) != len(classes):
        raise TutelageError(f"{path}: expected a column for each of {len(classes)} classes; found {len(names)}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TutelageError(f"{path}: a column for each class, once; {twice} come several times")
    if {*names} == {*classes}:
        return _by(names, list(classes), "by their names", path)
    if (numbers := _numbers(names)) is not None:
        first = min(numbers)
        if sorted(numbers) != list(range(first, first + len(names))) or first not in (0, 1):
            raise TutelageError(
                f"{path}: columns that are numbered must count from 0 or 1 without a gap; found {names[:10]} for the "
                f"classes {list(classes)[:10]}"
            )
        return _by(numbers, list(range(first, first + len(names))), f"by their numbers, from {first}", path)
    if known := {*names} & {*classes}:
        odd = sorted({*names} - known)
        raise TutelageError(f"{path}: the columns {odd[:10]} are no class; {odd[0]!r}: {nearest(odd[0], classes)}")
    log.warning(
        "%s: its columns %s are not called as the classes %s; taken by place, the first column as class 0",
        path, names[:10], list(classes)[:10],
    )  # fmt: skip
    return list(range(len(names)))


def _by(found: Sequence[object], wanted: Sequence[object], how: str, path: str) -> list[int]:
    place = {name: i for i, name in enumerate(found)}
    order = [place[name] for name in wanted]
    if order != sorted(order):
        log.warning("%s: its columns are in another order than the classes; taken %s", path, how)
    else:
        log.info("%s: columns taken %s", path, how)
    return order


def _numbers(names: Sequence[str]) -> list[int] | None:
    """Returns the numbers in the names if all of them are one common word (or none) and a number; else None."""
    parts = [re.fullmatch(r"(.*?)(\d{1,9})", name) for name in names]
    found = [part.groups() for part in parts if part]
    if len(found) < len(names) or len({word for word, _ in found}) != 1:
        return None
    return [int(number) for _, number in found]
