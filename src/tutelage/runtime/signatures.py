"""Inspects which arguments a class or function takes by name."""

import inspect
from typing import Any


def parameters(target: Any) -> tuple[set[str], bool]:
    """The names of the arguments of ``target``, and whether it takes others as well.

    The ``**rest`` of a class stands for the arguments of its parent; so it takes others only where a ``**rest`` is left
    at the end, or where a builtin does not say what it takes.
    """
    known: set[str] = set()
    for callee in _callees(target):
        try:
            found = inspect.signature(callee).parameters
        except ValueError:
            return known - {"self"}, True
        known |= {name for name, p in found.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind is p.VAR_KEYWORD for p in found.values()):
            return known - {"self"}, False
    return known - {"self"}, True


def truth_values(target: Any) -> set[str]:
    """Returns the names of the arguments of ``target`` that are annotated as ``bool``."""
    found: set[str] = set()
    for callee in _callees(target):
        try:
            known = inspect.signature(callee).parameters
        except ValueError:
            break
        found |= {name for name, parameter in known.items() if parameter.annotation in (bool, "bool")}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
            break
    return found


def _callees(target: Any) -> list[Any]:
    """Returns what is called in turn: of a class its own ``__init__`` and its parents'."""
    if not inspect.isclass(target):
        return [target]
    return [vars(c)["__init__"] for c in target.__mro__ if "__init__" in vars(c)]
