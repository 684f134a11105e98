"""Reads state dicts from third-party checkpoints without running their code, and matches them to a network.

A checkpoint is seldom a bare state dict. It may be a dictionary that contains one (``state_dict``, ``model``, ``ema``
…), a pickled module, contain several networks, or have a wrapper's prefix (``module.``) before every name.
"""

import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import TutelageError, nearest
from tutelage.runtime.file_sizes import check_size

State = dict[str, Tensor]

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # may occur anywhere in a name
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


@dataclass(frozen=True, eq=False)
class Fit:
    """A part of a file, compared with a network's state.

    Attributes:
        key: key of the state dict in the file.
        prefix: prefix of all names of the part.
        state: the part, without the prefix.
        unused: number of tensors of the state dict with another prefix.
        expected: the network's state.
    """

    key: str
    prefix: str
    state: State
    unused: int
    expected: Mapping[str, Tensor]

    @property
    def missing(self) -> list[str]:
        """Returns names of the network that the part lacks, except batch counters, which old files do not have."""
        lacking = self.expected.keys() - self.state.keys()
        return sorted(name for name in lacking if not name.endswith("num_batches_tracked"))

    @property
    def extra(self) -> list[str]:
        """Returns names of the part that the network lacks."""
        return sorted(self.state.keys() - self.expected.keys())

    @property
    def different(self) -> list[str]:
        """Returns the tensors whose shape or kind of dtype differs, with both shapes."""
        pairs = [(name, self.state[name], self.expected[name]) for name in sorted(self.state.keys() & self.expected)]
        return [
            f"{name} {_kind(found, wanted)} in the file, {_kind(wanted, found)} in the network"
            for name, found, wanted in pairs
            if found.shape != wanted.shape or found.is_floating_point() != wanted.is_floating_point()
        ]

    @property
    def matches(self) -> bool:
        """Checks whether the part matches the network's state."""
        return not (self.missing or self.extra or self.different)

    @property
    def place(self) -> str:
        """Returns the part's key and prefix in the file as text; empty for the whole file."""
        parts = [f"key {self.key!r}"] * bool(self.key) + [f"prefix {self.prefix!r}"] * bool(self.prefix)
        return ", ".join(parts)

    @property
    def description(self) -> str:
        """Returns ``place`` and the number of tensors that are not used."""
        return self.place + (f"; {self.unused} other tensors are not used" if self.unused else "")

    def options(self, others: "list[Fit]") -> str:
        """Returns the command-line options that choose this part among ``others``."""
        named = [f"key={self.key}"] * (len({one.key for one in others}) > 1)
        named += [f"prefix={self.prefix or repr('')}"] * (len({one.prefix for one in others}) > 1)
        return " ".join(named)

    def complaint(self) -> str:
        """Returns the mismatches as text, the first ten names of each kind."""
        lines = [
            _list("missing from the file", self.missing),
            _list("unexpected in the file", self.extra),
            _list("of another shape", self.different),
        ]
        if self.missing and self.extra:
            lines.append(f"{self.missing[0]!r}: {nearest(self.missing[0], self.extra)}" * (len(self.extra) < 200))
        return "\n  ".join(["", *filter(None, lines)])


def fit(
    states: Mapping[str, State],
    expected: Mapping[str, Tensor],
    path: Path,
    name: str,
    key: str | None = None,
    prefix: str | None = None,
) -> Fit:
    """Returns the part of a file that matches a network's state.

    Args:
        states: the file's state dicts by key.
        expected: the network's state.
        path: the file, for messages.
        name: name of the network, for messages.
        key: the only state dict to search; by default all.
        prefix: the only prefix to search, with or without its last dot; by default all.

    Raises:
        TutelageError: no part matches (with the mismatches of the nearest one), or several with different weights do.
    """
    looked = dict(states) if key is None else {key: one_state(states, path, key)}
    wanted = None if prefix is None else f"{prefix.removesuffix('.')}." if prefix else ""
    for wrapper in _WRAPPERS:  # inserted into names by torch.compile and FSDP
        if not any(wrapper in one for one in expected):
            looked = {at: {n.replace(wrapper, ""): x for n, x in state.items()} for at, state in looked.items()}
            wanted = wanted and wanted.replace(wrapper, "")
    parts = [part for at, state in looked.items() for part in _parts(at, state, expected, wanted)]
    fitting = [part for part in parts if part.matches]
    if not fitting:
        raise TutelageError(_no_fit(parts, path, name, wanted, looked))
    chosen = fitting[0]
    if not all(_equal(part.state, chosen.state) for part in fitting):
        options = [part.options(fitting) for part in fitting]
        raise TutelageError(
            f"{path} has {len(fitting)} different sets of weights that fit {name}. Choose one by an option beside "
            f"`checkpoint`: {' or '.join(options)}; for a single teacher: sources.teacher.{options[0].split()[0]}"
        )
    return chosen


def _no_fit(parts: list[Fit], path: Path, name: str, prefix: str | None, states: Mapping[str, State]) -> str:
    nearest_part = min(parts, key=lambda one: len(one.missing) + len(one.extra) + len(one.different), default=None)
    if nearest_part is None:
        tops = sorted({tensor.split(".")[0] for state in states.values() for tensor in state})
        return f"{path}: no tensor under prefix={prefix}; {nearest(str(prefix), tops)}"
    place = f" ({nearest_part.place})" if nearest_part.place else ""
    return f"{path}{place} does not fit {name}:{nearest_part.complaint()}"


def _parts(key: str, state: State, expected: Mapping[str, Tensor], prefix: str | None) -> list[Fit]:
    """Returns the part under ``prefix``, or under every prefix that the network's first name has in ``state``."""
    first = next(iter(expected), "")
    found = {name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")}
    tried = sorted(found) or [""]
    if prefix is not None:
        tried = [prefix] if any(name.startswith(prefix) for name in state) else []
    parts = []
    for start in tried:
        longer = tuple(other for other in found if other != start and other.startswith(start))
        own = {n.removeprefix(start): x for n, x in state.items() if n.startswith(start) and not n.startswith(longer)}
        parts.append(Fit(key, start, own, len(state) - len(own), expected))
    return parts


def _equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _kind(tensor: Tensor, other: Tensor) -> str:
    numbers = "" if tensor.is_floating_point() == other.is_floating_point() else f" {tensor.dtype}"
    return f"{list(tensor.shape)}{numbers}"


def _list(what: str, names: list[str]) -> str:
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    shown = [name if name.isprintable() else repr(name) for name in names[:_LISTED]]
    return f"{what} ({len(names)}): {'; '.join(shown)}{more}" if names else ""


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
