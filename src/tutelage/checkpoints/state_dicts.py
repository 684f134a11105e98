"""State dicts in others' files: read without running their code, found in wrappers, matched to a network.

A checkpoint is seldom a bare state dict. It may be a dictionary that has one (``state_dict``, ``model``, ``ema`` …), a
whole pickled module, hold several networks side by side, or have a wrapper's prefix (``module.``) before every name.
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

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # may stand anywhere in a name
_DEPTH = 3  # so many dictionaries may lie around a state dict
_LISTED = 10


def load_states(path: Path) -> dict[str, State]:
    """Returns the state dicts in a PyTorch file, by the keys that lead to them (joined by dots; "" is the file itself).

    It is read with ``weights_only``. Classes that PyTorch does not allow, as hyperparameters and whole pickled modules
    have them, become empty stand-ins: none of their code runs, and the tensors of a module are found all the same.

    Raises:
        TutelageError: the file is damaged, or holds no state dict.
    """
    _check_unpacked(path)
    try:
        content = _load(path)
        found = dict(_states(content, "", _DEPTH))
    except Exception as error:  # a damaged pickle can raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TutelageError(
            f"{path}: not a PyTorch state dict that loads without running code ({reason}). If you trust the file: "
            "torch.save(torch.load(file, weights_only=False).state_dict(), new_file), and give the new file"
        ) from error
    if not found:
        keys = f" with the keys {list(content)[:_LISTED]}" if isinstance(content, dict) else ""
        raise TutelageError(f"{path}: expected a state dict (name → tensor), found {type(content).__name__}{keys}")
    return found


def _check_unpacked(path: Path) -> None:
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:  # older files are no archives
        check_size(path, sum(entry.file_size for entry in archive.infolist()))


def one_state(states: Mapping[str, State], path: Path, key: str | None = None, option: str = "key") -> State:
    """Returns the state dict under ``key``, which errors call ``option``, or the only one there is.

    Raises:
        TutelageError: there is none under this key, or several to choose from.
    """
    if key is not None and key not in states:
        raise TutelageError(f"{path}: no state dict under {option}={key}; {nearest(key, states)}")
    if key is None and len(states) > 1:
        raise TutelageError(f"{path} holds {len(states)} state dicts; say which: {_either(option, states)}")
    return states[key] if key is not None else next(iter(states.values()))


@dataclass(frozen=True, eq=False)
class Fit:
    """A part of a file, compared with a network's state.

    Attributes:
        key: of the state dict in the file.
        prefix: before all names of the part.
        state: the part, without the prefix.
        unused: how many tensors of the state dict have another prefix.
        expected: the network's state.
    """

    key: str
    prefix: str
    state: State
    unused: int
    expected: Mapping[str, Tensor]

    @property
    def missing(self) -> list[str]:
        """Returns names of the network that the part lacks; files from before 2018 do not count batches."""
        lacking = self.expected.keys() - self.state.keys()
        return sorted(name for name in lacking if not name.endswith("num_batches_tracked"))

    @property
    def extra(self) -> list[str]:
        """Returns names of the part that the network lacks."""
        return sorted(self.state.keys() - self.expected.keys())

    @property
    def different(self) -> list[str]:
        """Returns the names of tensors of another shape, or of another kind of numbers."""
        pairs = [(name, self.state[name], self.expected[name]) for name in sorted(self.state.keys() & self.expected)]
        return [
            f"{name} {_kind(found, wanted)} in the file, {_kind(wanted, found)} in the network"
            for name, found, wanted in pairs
            if found.shape != wanted.shape or found.is_floating_point() != wanted.is_floating_point()
        ]

    @property
    def matches(self) -> bool:
        """Checks whether the part is the network's state."""
        return not (self.missing or self.extra or self.different)

    @property
    def place(self) -> str:
        """Returns the part's key and prefix in the file; empty for the whole file."""
        parts = [f"key {self.key!r}"] * bool(self.key) + [f"prefix {self.prefix!r}"] * bool(self.prefix)
        return ", ".join(parts)

    @property
    def description(self) -> str:
        """``place``, and how much of the file is left out."""
        return self.place + (f"; {self.unused} other tensors are not used" if self.unused else "")

    def options(self, others: "list[Fit]") -> str:
        """Returns the command-line options that choose this part among ``others``."""
        named = [f"key={self.key}"] * (len({one.key for one in others}) > 1)
        named += [f"prefix={self.prefix or repr('')}"] * (len({one.prefix for one in others}) > 1)
        return " ".join(named)

    def complaint(self) -> str:
        """Returns what does not match, the first ten names of each kind."""
        lines = [
            _list("missing from the file", self.missing),
            _list("left over in the file", self.extra),
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
    """Returns the one part of a file that is a network's state.

    Args:
        states: of the file, by key.
        expected: the network's state.
        path: what errors call the file.
        name: what errors call the network.
        key: the only state dict to look into; by default all.
        prefix: the only one to look under, with or without its last dot; by default all.

    Raises:
        TutelageError: no part fits, which is told of the one that is nearest; or several do, with different weights.
    """
    looked = dict(states) if key is None else {key: one_state(states, path, key)}
    wanted = None if prefix is None else f"{prefix.removesuffix('.')}." if prefix else ""
    for wrapper in _WRAPPERS:  # what torch.compile and FSDP put into names, anywhere in them
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
            f"{path} holds {len(fitting)} sets of weights that fit {name}, and they differ. Say beside `checkpoint` "
            f"which is meant: {' or '.join(options)}; for one teacher that is sources.teacher.{options[0].split()[0]}"
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
    """Returns the part under every prefix that the network's first name has in ``state``, or under the wanted one."""
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
    """Yields what ``state_dict()`` of a pickled module would hold, from its ``__dict__``."""
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
    """Base of the stand-ins for what a function or class of a file would have made."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Calls(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(_Called)


class _StandIn(metaclass=_Calls):
    """Stands for a class or function that a file names; its instances hold state and do nothing."""

    def __new__(cls, *args: Any) -> Any:  # how objects are unpickled; this type may be filled with items and state
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
