"""Inspects which arguments a class or function takes by name."""

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

_PLAIN: dict[Any, frozenset[type]] = {
    kind: frozenset(types)
    for kinds, types in (
        ((int,), {int}), ((float,), {int, float}), ((str, Path, PathLike), {str}), ((bool,), {bool}),
        ((None, NoneType), {NoneType}), ((list, tuple, Sequence, Iterable, Collection), {list}),
        ((dict, Mapping), {dict}),
    )
    for kind in kinds
}  # fmt: skip

_NUMBERS = frozenset({int, float})


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


def plain_types(target: Any) -> dict[str, frozenset[type]]:
    """Returns the types of a yaml's values that an argument of ``target`` takes, by its annotation.

    Arguments without an annotation, and those that also take other objects, are left out.
    """
    signatures = [found or {} for found in _signatures(target)]
    known = {name: _plain(p.annotation) for found in reversed(signatures) for name, p in found.items()}
    return {name: types for name, types in known.items() if types}


def lists_of_numbers(target: Any) -> set[str]:
    """Returns the names of the arguments of ``target`` that take lists, and only such of numbers."""
    signatures = [found or {} for found in _signatures(target)]
    return {name for found in signatures for name, p in found.items() if _has_numbers(p.annotation)}


def _has_numbers(annotation: Any) -> bool:
    several = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    elements = [get_args(one) for one in several if list in _plain(one)]
    return bool(elements) and all(
        bool(each) and all(one is ... or _NUMBERS >= _plain(one) > frozenset() for one in each) for each in elements
    )


def _plain(annotation: Any) -> frozenset[type]:
    """Returns the types of a yaml's values that fit an annotation; none if it also stands for other objects."""
    if get_origin(annotation) in (Union, UnionType):
        each = [_plain(one) for one in get_args(annotation)]
        return frozenset().union(*each) if all(each) else frozenset()
    if get_origin(annotation) is Literal:
        return frozenset(type(one) for one in get_args(annotation))
    if inspect.isclass(annotation) and annotation.__module__.startswith("tutelage."):
        return frozenset({dict})  # made by a mapping with ``_target_``
    return _PLAIN.get(get_origin(annotation) or annotation, frozenset())


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
