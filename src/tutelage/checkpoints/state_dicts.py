"""Reads state dicts from third-party checkpoints without running their code.

A checkpoint is seldom a bare state dict. It may be a dictionary that contains one (``state_dict``, ``model``, ``ema``
…), a pickled module, contain several networks, or have a wrapper's prefix (``module.``) before every name.
"""

import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import TutelageError, nearest
from tutelage.runtime.file_sizes import check_size

State = dict[str, Tensor]

_DEPTH = 3  # greatest number of dictionaries around a state dict
_LISTED = 10


def load_states(path: Path) -> dict[str, State]:
    """Returns the state dicts in a PyTorch file by their keys, joined by dots; "" is the file itself.

    The file is read with ``weights_only``. Classes that PyTorch does not allow, as in hyperparameters and pickled
    modules, are replaced by empty stand-ins: none of their code runs, and the tensors of a module are still found.

    Raises:
        TutelageError: the file is damaged, or has no state dict.
    """
    _check_unpacked(path)
    try:
        content = _load(path)
        found = dict(_states(content, "", _DEPTH))
    except Exception as error:  # a damaged pickle can raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TutelageError(
            f"{path}: not a PyTorch state dict that loads without running code ({reason}). If you trust the file: "
            "torch.save(torch.load(file, weights_only=False).state_dict(), new_file), and use the new file"
        ) from error
    if not found:
        keys = f" with the keys {list(content)[:_LISTED]}" if isinstance(content, dict) else ""
        raise TutelageError(f"{path}: expected a state dict (name → tensor), found {type(content).__name__}{keys}")
    return found


def _check_unpacked(path: Path) -> None:
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:  # older files are not archives
        check_size(path, sum(entry.file_size for entry in archive.infolist()))


def one_state(states: Mapping[str, State], path: Path, key: str | None = None, option: str = "key") -> State:
    """Returns the state dict under ``key``, or the only one; messages call the key ``option``.

    Raises:
        TutelageError: there is none under this key, or there are several and no key.
    """
    if key is not None and key not in states:
        raise TutelageError(f"{path}: no state dict under {option}={key}; {nearest(key, states)}")
    if key is None and len(states) > 1:
        raise TutelageError(f"{path} has {len(states)} state dicts; choose one: {_either(option, states)}")
    return states[key] if key is not None else next(iter(states.values()))


def _either(option: str, values: Mapping[str, Any]) -> str:
    return " or ".join(f"{option}={value}" for value in list(values)[:_LISTED])


def _states(node: Any, name: str, depth: int) -> Iterator[tuple[str, State]]:
    if _is_module(node):
        yield name, dict(_of_module(node, ""))
    elif isinstance(node, dict) and node and all(isinstance(k, str) for k in node):
        if all(isinstance(value, Tensor) for value in node.values()):
            yield name, dict(node)
        elif depth:
            for key, value in node.items():
                yield from _states(value, f"{name}.{key}" if name else key, depth - 1)


def _is_module(node: Any) -> bool:
    return isinstance(node, OrderedDict) and {"_parameters", "_buffers", "_modules"} <= vars(node).keys()


def _of_module(node: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yields the items of a pickled module's ``state_dict()``, from its ``__dict__``."""
    own = vars(node)
    left_out = own.get("_non_persistent_buffers_set", ())
    buffers = {name: tensor for name, tensor in own["_buffers"].items() if name not in left_out}
    for name, tensor in {**own["_parameters"], **buffers}.items():
        if isinstance(tensor, Tensor):
            yield f"{prefix}{name}", tensor.detach()
    for name, child in own["_modules"].items():
        if _is_module(child):
            yield from _of_module(child, f"{prefix}{name}.")


class _Called:
    """Stands in for the results of a file's functions and classes."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Calls(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(_Called)


class _StandIn(metaclass=_Calls):
    """Stands in for a class or function that a file names; its instances have state and do nothing."""

    def __new__(cls, *args: Any) -> Any:  # called by unpickling; an OrderedDict accepts items and state
        return OrderedDict()


def _empty(*args: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:
            raise error from None
        if not names:
            raise
    stand_ins = [(_empty if name == "collections.defaultdict" else _StandIn, name) for name in names]
    with torch.serialization.safe_globals([*stand_ins, _Called]):
        return torch.load(path, map_location="cpu", weights_only=True)
