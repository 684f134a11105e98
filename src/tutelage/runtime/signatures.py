"""Inspects which arguments a class or function takes by name."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any


def parameters(target: Any) -> tuple[set[str], bool]:
    """The names of the arguments of ``target``, and whether it takes others as well.

    The ``**rest`` of a class stands for the arguments of its parent; so it takes others only where a ``**rest`` is left
    at the end, or where a builtin does not say what it takes.
    """
    known, takes_others = {"self"}, True
    for found in _signatures(target):
        takes_others = found is None or _takes_rest(found)
        known |= {name for name, p in (found or {}).items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    return known - {"self"}, takes_others


def truth_values(target: Any) -> set[str]:
    """Returns the names of the arguments of ``target`` that are annotated as ``bool``."""
    signatures = [found or {} for found in _signatures(target)]
    return {name for found in signatures for name, p in found.items() if p.annotation in (bool, "bool")}


def _signatures(target: Any) -> Iterator[Mapping[str, inspect.Parameter] | None]:
    """Yields the parameters of ``target``; of a class its ``__init__``'s, then its parents' as far as ``**rest`` goes.

    None stands for a builtin that does not say what it takes, and ends them.
    """
    called = [target]
    if inspect.isclass(target):
        called = [vars(c)["__init__"] for c in target.__mro__ if "__init__" in vars(c)]
    for callee in called:
        try:
            found = inspect.signature(callee).parameters
        except ValueError:
            yield None
            return
        yield found
        if not _takes_rest(found):
            return


def _takes_rest(found: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in found.values())
