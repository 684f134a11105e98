"""Inspects which arguments a class or function takes by name."""

import inspect
from typing import Any


def parameters(target: Any) -> tuple[set[str], bool]:
    """The names of the arguments of ``target``, and whether it takes others as well.

    The ``**rest`` of a class stands for the arguments of its parent; so it takes others only where a ``**rest`` is left
    at the end, or where a builtin does not say what it takes.
    """
    own = (
        [vars(c)["__init__"] for c in target.__mro__ if "__init__" in vars(c)] if inspect.isclass(target) else [target]
    )
    known: set[str] = set()
    for callee in own:
        try:
            found = inspect.signature(callee).parameters
        except ValueError:
            return known - {"self"}, True
        known |= {name for name, p in found.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind is p.VAR_KEYWORD for p in found.values()):
            return known - {"self"}, False
    return known - {"self"}, True
