"""Reads JSON documents of unknown origin: errors name the file and the place in one sentence."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tutelage.errors import TutelageError

Form = Mapping[str, Any]  # name → form or kind; a name that ends in "?" may be missing or null, "*" is any name

_LARGEST = 1e30
_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "a text": lambda value: isinstance(value, str),
    "a number": lambda value: _is_number(value),
    "a fraction": lambda value: _is_number(value) and 0 <= value <= 1,
    "a size": lambda value: _is_number(value) and value >= 0,
    "true or false": lambda value: isinstance(value, bool),
    "a whole number": lambda value: _is_number(value) and isinstance(value, int),
    "names with values": lambda value: isinstance(value, dict),
    "a list of strings": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    "two numbers": lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)),
}


def _is_number(value: Any) -> bool:
    """Checks for a number that is finite, and whose square is finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def read_json_as(path: Path, form: Form) -> dict[str, Any]:
    """Reads a JSON file and checks its form.

    Raises:
        TutelageError: it can't be read, or does not have this form; begins with the file's name.
    """
    try:
        if not path.is_file():
            raise OSError("it is not a file")
        document = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise TutelageError(f"{path.name} can't be read: {_reason(error)}") from error
    return check(document, form, path.name)


def _reason(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(reason).splitlines()[0]


def check(document: Any, form: Form, name: str) -> dict[str, Any]:
    """Returns ``document`` after checking that it has this form.

    Raises:
        TutelageError: it has not; begins with ``name``, then says where.
    """
    if not isinstance(document, dict):
        raise TutelageError(f"{name} can't be read: expected dict, found {_shown(document)}")
    if problem := _mismatch(document, form, ""):
        raise TutelageError(f"{name}: {problem}")
    return document


def _mismatch(node: Any, form: Any, path: str) -> str:
    if isinstance(form, str):
        return "" if _KINDS[form](node) else f"{path}: expected {form}, found {_shown(node)}"
    if not isinstance(node, dict):
        return f"{path}: expected a mapping, found {_shown(node)}"
    for name, below in form.items():
        key = name.removesuffix("?")
        for one in node if key == "*" else [key]:
            if key != name and node.get(one) is None:
                continue
            if problem := _mismatch(node.get(one), below, f"{path}.{one}" if path else str(one)):
                return problem
    return ""


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:39]}…"
