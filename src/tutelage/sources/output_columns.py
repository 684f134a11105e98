"""Assigns the columns of a table of outputs to classes, by the columns' names rather than their positions."""

import logging
import re
from collections.abc import Sequence

from tutelage.errors import TutelageError, nearest

log = logging.getLogger(__name__)


def class_order(columns: Sequence[str], classes: Sequence[str], path: str) -> list[int]:
    """Returns the index of each class's column in ``columns``.

    Columns with the names of the classes are assigned by name. Numbered columns, ``0``, ``1`` … or ``p0``, ``p1`` …,
    from 0 or from 1, are assigned by number. Columns with other names are assigned by position, with a warning.

    Args:
        columns: names in the file, without the key's.
        classes: names of the data's classes, in the order of their labels.
        path: the file, for messages.

    Raises:
        TutelageError: the numbers of columns and classes differ, a name is repeated, only some columns have the name of
            a class, or the numbers have a gap.
    """
    names = [name.strip() for name in columns]
    if len(names) != len(classes):
        raise TutelageError(f"{path}: expected a column for each of {len(classes)} classes; found {len(names)}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TutelageError(f"{path}: expected one column for each class; found {twice} several times")
    if {*names} == {*classes}:
        return _by(names, list(classes), "by their names", path)
    if (numbers := _numbers(names)) is not None:
        first = min(numbers)
        if sorted(numbers) != list(range(first, first + len(names))) or first not in (0, 1):
            raise TutelageError(
                f"{path}: numbered columns must count from 0 or 1 without a gap; found {names[:10]} for the classes "
                f"{list(classes)[:10]}"
            )
        return _by(numbers, list(range(first, first + len(names))), f"by their numbers, from {first}", path)
    if known := {*names} & {*classes}:
        odd = sorted({*names} - known)
        raise TutelageError(
            f"{path}: the columns {odd[:10]} are not names of classes; {odd[0]!r}: {nearest(odd[0], classes)}"
        )
    log.warning(
        "%s: its columns %s do not have the names of the classes %s; assigned by position, the first column to class 0",
        path, names[:10], list(classes)[:10],
    )  # fmt: skip
    return list(range(len(names)))


def _by(found: Sequence[object], wanted: Sequence[object], how: str, path: str) -> list[int]:
    position = {name: i for i, name in enumerate(found)}
    order = [position[name] for name in wanted]
    if order != sorted(order):
        log.warning("%s: its columns are in another order than the classes; assigned %s", path, how)
    else:
        log.info("%s: columns assigned %s", path, how)
    return order


def _numbers(names: Sequence[str]) -> list[int] | None:
    """Returns the numbers in the names if all are the same word (or none) followed by a number; else None."""
    parts = [re.fullmatch(r"(.*?)(\d{1,9})", name) for name in names]
    found = [part.groups() for part in parts if part]
    if len(found) < len(names) or len({word for word, _ in found}) != 1:
        return None
    return [int(number) for _, number in found]
