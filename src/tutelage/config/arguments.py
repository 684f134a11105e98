"""Checks the keys of a config's parts by the signatures of what their ``_target_`` names."""

import re
from collections.abc import Iterator
from types import NoneType
from typing import Any, cast

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from tutelage.config.source_nodes import options
from tutelage.errors import TutelageError, nearest
from tutelage.runtime.signatures import lists_of_numbers, parameters, plain_types, truth_values
from tutelage.training.parameter_groups import OPTIONS

_HYDRA = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")  # keys that Hydra reads itself
_CALLED = {
    int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list", dict: "a mapping",
    NoneType: "null",
}  # fmt: skip
_OPTIMIZER = re.compile(r"(stages\.[\w.]+\.)?optimizer")


def targets(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Yields every node with a ``_target_``, with its full key."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        for key in node:  # not as text: YAML keys may be integers
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, cast(Any, key)):
                yield from targets(node[key], f"{path}.{key!s}" if path else str(key))
    elif isinstance(node, ListConfig):
        for i, item in enumerate(node):
            yield from targets(item, f"{path}[{i}]")


def check_arguments(path: str, node: DictConfig) -> None:
    """Checks that ``_target_`` exists and takes the other keys of its node.

    Args:
        path: full key of the node.
        node: with a ``_target_``.

    Raises:
        TutelageError: there is no such class or function, it takes no such argument, or an argument that is true or
            false is given a text.
    """
    try:
        target = get_object(node._target_)
    except Exception as error:
        raise TutelageError(f"{path}._target_: {_not_found(str(node._target_), error)}") from error
    known, takes_others = parameters(target)
    known |= options(target)
    if _OPTIMIZER.fullmatch(path):
        known |= set(OPTIONS)
    switches = truth_values(target)
    plain = plain_types(target) if str(getattr(target, "__module__", "")).startswith("tutelage.") else {}
    for key in map(str, node):
        if not takes_others and key not in known and key not in _HYDRA:
            near = nearest(key, _HYDRA if key.startswith("_") else known)
            raise TutelageError(f"{path}.{key}: {node._target_} takes no {key!r}; {near}")
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        if key in switches and isinstance(node[key], str):
            raise TutelageError(f"{path}.{key} must be true or false; found {node[key]!r}")
        given_later = bool(node.get("_partial_")) and node[key] is None  # such as a length: the whole training
        if key in plain and not given_later:
            _check_type(f"{path}.{key}", node[key], plain[key])
        if key in plain and isinstance(node[key], ListConfig) and key in lists_of_numbers(target):
            _check_numbers(f"{path}.{key}", node[key])


def _check_numbers(key: str, values: ListConfig) -> None:
    for place in range(len(values)):
        if not OmegaConf.is_interpolation(values, place) and isinstance(values[place], str):
            raise TutelageError(f"{key}[{place}] must be a number; found {values[place]!r}")


def _not_found(name: str, error: Exception) -> str:
    """Returns what is wrong with a name that can't be imported, in one line."""
    place, _, last = name.rpartition(".")
    try:
        known = [one for one in dir(get_object(place)) if not one.startswith("_")]
    except Exception:  # whatever the import of anyone's module raises
        return f"cannot find {name!r} ({' '.join(str(error).split())})"
    return f"{place} has no {last!r}; {nearest(last, known)}"


def _check_type(key: str, value: Any, types: frozenset[type]) -> None:
    """Refuses a value of another type than an argument takes; what has a ``_target_`` becomes some object."""
    if isinstance(value, DictConfig) and "_target_" in value:
        return
    found: type = dict if isinstance(value, DictConfig) else list if isinstance(value, ListConfig) else type(value)
    if found not in types:
        called = [name for kind, name in _CALLED.items() if kind in types and not (kind is int and float in types)]
        quoted = f": as a text {key}=\"'{value}'\"" if str in types and isinstance(value, int | float) else ""
        raise TutelageError(f"{key} must be {' or '.join(called)}; found {value!r}{quoted}")
