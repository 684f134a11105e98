"""Matches the state dicts of a file to a network: the part that has its names, renamed if asked."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tutelage.checkpoints.state_dicts import State, one_state
from tutelage.errors import TutelageError, nearest

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # may occur anywhere in a name
_LISTED = 10


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
    def usable(self) -> State:
        """Returns the tensors of the part that the network has with the same shape and kind of dtype."""
        both = {name: tensor for name, tensor in self.state.items() if name in self.expected}
        return {name: tensor for name, tensor in both.items() if _same_form(tensor, self.expected[name])}

    @property
    def different(self) -> list[str]:
        """Returns the tensors whose shape or kind of dtype differs, with both shapes."""
        odd = sorted((self.state.keys() & self.expected) - self.usable.keys())
        pairs = [(name, self.state[name], self.expected[name]) for name in odd]
        return [
            f"{name} {_kind(found, wanted)} in the file, {_kind(wanted, found)} in the network"
            for name, found, wanted in pairs
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
        """Returns ``place``, the number of tensors that are not used, and what does not match, if anything."""
        text = self.place + (f"; {self.unused} other tensors are not used" if self.unused else "")
        if self.matches:
            return text
        loaded = f"{len(self.usable)} of the network's {len(self.expected)} tensors"
        return f"{text}{'; ' if text else ''}{loaded}{self.complaint()}"

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
    rename: Mapping[str, str] | None = None,
    strict: bool = True,
) -> Fit:
    """Returns the part of a file that matches a network's state.

    Args:
        states: the file's state dicts by key.
        expected: the network's state.
        path: the file, for messages.
        name: name of the network, for messages.
        key: the only state dict to search; by default all.
        prefix: the only prefix to search, with or without its last dot; by default all.
        rename: pattern → replacement (:func:`renamed`), applied to the names behind ``prefix``, to whole names without.
        strict: whether all names and shapes must match; else the part with the most tensors that do.

    Raises:
        TutelageError: no part matches (with the mismatches of the nearest one), or several with different weights do.
    """
    looked = dict(states) if key is None else {key: one_state(states, path, key)}
    wanted = None if prefix is None else f"{prefix.removesuffix('.')}." if prefix else ""
    for wrapper in _WRAPPERS:  # inserted into names by torch.compile and FSDP
        if not any(wrapper in one for one in expected):
            looked = {at: {n.replace(wrapper, ""): x for n, x in state.items()} for at, state in looked.items()}
            wanted = wanted and wanted.replace(wrapper, "")
    looked = {at: renamed(state, rename or {}, path, wanted or "") for at, state in looked.items()}
    parts = [part for at, state in looked.items() for part in _parts(at, state, expected, wanted, strict)]
    fitting = [part for part in parts if part.matches]
    if not (fitting or strict) and (most := max((len(part.usable) for part in parts), default=0)):
        fitting = [part for part in parts if len(part.usable) == most]
    if not fitting:
        raise TutelageError(_no_fit(parts, path, name, wanted, looked))
    chosen = fitting[0]
    if not all(_equal(part.usable, chosen.usable) for part in fitting):
        options = [part.options(fitting) for part in fitting]
        raise TutelageError(
            f"{path} has {len(fitting)} different sets of weights that fit {name}. Choose one by an option beside "
            f"`checkpoint`: {' or '.join(options)}; for a single teacher: sources.teacher.{options[0].split()[0]}"
        )
    return chosen


def renamed(state: State, rename: Mapping[str, str], path: Path, prefix: str = "") -> State:
    """Returns a state dict with other names.

    A pattern is one or several whole parts of a name, between dots, anywhere in it; ``*`` stands for any characters
    of a part, and in the replacement for what it stood for: ``{"blocks.*.fc*": "layer.*.linear*"}``. An empty
    replacement leaves the parts out. Each pattern applies to what those before it made.

    Args:
        state: as it was read.
        rename: pattern → replacement.
        path: the file, for messages.
        prefix: beginning of the names that is left as it is; names without it are not changed.

    Raises:
        TutelageError: a pattern occurs in no name, its replacement has more ``*``, or two names become one.
    """
    names = {name: name for name in state}
    for pattern, replacement in rename.items():
        found, count = _pattern(pattern), replacement.count("*")
        if count > pattern.count("*"):
            raise TutelageError(f"rename: {replacement!r} has more * than {pattern!r}")
        changed = {
            old: prefix + _replaced(found, replacement, new.removeprefix(prefix)) if new.startswith(prefix) else new
            for old, new in names.items()
        }
        if changed == names:
            parts = sorted({part for new in names.values() for part in new.split(".")})
            raise TutelageError(f"rename: no name in {path} has {pattern!r}; {nearest(pattern, parts)}")
        names = changed
    origin: dict[str, str] = {}
    for old, new in names.items():
        if origin.setdefault(new, old) != old:
            raise TutelageError(f"rename: {origin[new]!r} and {old!r} of {path} both become {new!r}")
    return {new: state[old] for old, new in names.items()}


def _pattern(pattern: str) -> re.Pattern[str]:
    inner = r"([^.]*)".join(map(re.escape, pattern.strip(".").split("*")))
    return re.compile(rf"(?:(?<=\.)|^){inner}(?=\.|$)")


def _replaced(pattern: re.Pattern[str], replacement: str, name: str) -> str:
    def fill(found: re.Match[str]) -> str:
        texts = iter(found.groups())
        return re.sub(r"\*", lambda _: next(texts), replacement.strip("."))

    made = pattern.sub(fill, name)
    return ".".join(part for part in made.split(".") if part)


def _no_fit(parts: list[Fit], path: Path, name: str, prefix: str | None, states: Mapping[str, State]) -> str:
    nearest_part = min(parts, key=lambda one: len(one.missing) + len(one.extra) + len(one.different), default=None)
    if nearest_part is None:
        tops = sorted({tensor.split(".")[0] for state in states.values() for tensor in state})
        return f"{path}: no tensor under prefix={prefix}; {nearest(str(prefix), tops)}"
    place = f" ({nearest_part.place})" if nearest_part.place else ""
    return f"{path}{place} does not fit {name}:{nearest_part.complaint()}"


def _parts(key: str, state: State, expected: Mapping[str, Tensor], prefix: str | None, strict: bool) -> list[Fit]:
    """Returns the part under ``prefix``, or under every prefix that a network's name has in ``state``.

    The network's first name alone is looked for if all of them must be there.
    """
    found = _prefixes(state, list(expected)[:1] if strict else expected)
    tried = sorted(found) or [""]
    if prefix is not None:
        tried = [prefix] if any(name.startswith(prefix) for name in state) else []
    parts = []
    for start in tried:
        longer = tuple(other for other in found if strict and other != start and other.startswith(start))
        own = {n.removeprefix(start): x for n, x in state.items() if n.startswith(start) and not n.startswith(longer)}
        parts.append(Fit(key, start, own, len(state) - len(own), expected))
    return parts


def _prefixes(state: State, names: Iterable[str]) -> set[str]:
    """Returns what stands before one of ``names``, whole parts of it, in a name of ``state``."""
    known, found = set(names), set()
    for name in state:
        parts = name.split(".")
        found |= {".".join([*parts[:place], ""]) for place in range(len(parts)) if ".".join(parts[place:]) in known}
    return found


def _equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _same_form(tensor: Tensor, other: Tensor) -> bool:
    return tensor.shape == other.shape and tensor.is_floating_point() == other.is_floating_point()


def _kind(tensor: Tensor, other: Tensor) -> str:
    numbers = "" if tensor.is_floating_point() == other.is_floating_point() else f" {tensor.dtype}"
    return f"{list(tensor.shape)}{numbers}"


def _list(what: str, names: list[str]) -> str:
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    shown = [name if name.isprintable() else repr(name) for name in names[:_LISTED]]
    return f"{what} ({len(names)}): {'; '.join(shown)}{more}" if names else ""
