"""Paths to tensors of a network or its output: ``layer.2[0]``, ``head.input``, ``[1]``, ``logits``, ``blocks.{}``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tutelage.errors import TutelageError, nearest

_FROM_LAST = re.compile(r"-[1-9]\d*")
_ELEMENTS = re.compile(r"((?:\[[^\[\]]+\])*)$")
_STEP = re.compile(r"\[([^\[\]]+)\]|\.?([^.\[\]]+)")
_INPUT = ".input"


def element(value: Any, path: str, what: str) -> Tensor:
    """Returns the tensor at ``path`` in the output of a module: ``logits``, ``[0]``, ``hidden_states[-1]``.

    Args:
        value: a tuple, list, mapping, dataclass or object with attributes, nested in any way; with an empty path a
            tensor.
        path: indices and keys in brackets, names of keys or attributes with dots between them.
        what: name of the module, for messages.

    Raises:
        TutelageError: there is no tensor at ``path``; names what there is.
    """
    for index, name in _STEP.findall(path):
        value = _step(value, index or name, path, what)
    if not isinstance(value, Tensor):
        raise TutelageError(f"{what} gives {described(value)}; name the tensor in it, {example(value)}")
    return value


def _step(value: Any, name: str, path: str, what: str) -> Any:
    try:
        if isinstance(value, Mapping):
            return value[name]
        if isinstance(value, tuple | list) and re.fullmatch(r"-?\d+", name):
            return value[int(name)]
        return getattr(value, name)
    except (KeyError, IndexError, AttributeError):
        raise TutelageError(f"{what} gives {described(value)}, which has no {name!r} (of {path!r})") from None


def described(value: Any) -> str:
    """Returns a text for a module's output: its type and the names of its parts."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    if names := _names(value):
        return f"a {type(value).__name__} with {', '.join(names)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _names(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [str(key) for key in value]
    if names := getattr(type(value), "__match_args__", ()):  # a dataclass or a named tuple
        return list(names)
    return [] if isinstance(value, tuple | list) else list(getattr(value, "__dict__", {}))


def example(value: Any) -> str:
    """Returns a possible path in ``value``, as text for a message."""
    names = _names(value)
    if not names:
        return "such as [0]"
    return "such as " + ("logits" if "logits" in names else names[0])


@dataclass(frozen=True)
class Place:
    """The location of an intermediate tensor of a network.

    Attributes:
        module: path of the submodule.
        of_input: whether it is the submodule's input (its first argument) rather than its output.
        elements: path within it: ``[0]``, ``[0][1]``, ``[hidden]``; empty for all of it.
    """

    module: str
    of_input: bool
    elements: str


def place(net: nn.Module, path: str) -> Place:
    """Parses a path: a submodule, optionally ``.input``, optionally elements in brackets.

    A submodule may be counted from the last one: ``blocks.-1``. A submodule named ``input`` has precedence.
    """
    elements = _ELEMENTS.search(path)
    assert elements is not None  # it also matches the empty string
    rest = path[: elements.start()]
    of_input = rest.endswith(_INPUT) and not _has(net, counted(net, rest))
    return Place(counted(net, rest.removesuffix(_INPUT) if of_input else rest), of_input, elements[1])


def _has(net: nn.Module, path: str) -> bool:
    try:
        net.get_submodule(path)
    except AttributeError:
        return False
    return True


def counted(net: nn.Module, path: str) -> str:
    """Replaces negative indices in ``path`` by the names of the children."""
    module, names = net, []
    for part in path.split("."):
        children = list(dict(module.named_children()))
        names.append(children[int(part)] if _FROM_LAST.fullmatch(part) and -int(part) <= len(children) else part)
        module = getattr(module, names[-1], module)
    return ".".join(names)


def expanded(net: nn.Module, taps: Mapping[str, str]) -> dict[str, str]:
    """Expands ``{"layer{}": "encoder.layer.{}"}`` to one tap for each child: layer0, layer1, ….

    ``*`` may stand for ``{}``, which a command line can't have in a name.

    Raises:
        TutelageError: ``{}`` is missing in the tap or the path, or the module has no children.
    """
    found: dict[str, str] = {}
    for name, path in ((name.replace("*", "{}"), path.replace("*", "{}")) for name, path in taps.items()):
        if "{}" not in name and "{}" not in path:
            found[name] = path
            continue
        if name.count("{}") != 1 or path.count("{}") != 1:
            raise TutelageError(f"tap {name!r}: {path!r}: a pattern needs {{}} once in the tap and once in the path")
        before = path.split("{}")[0].rstrip(".")
        if not _has(net, counted(net, before)):
            known = [one for one, _ in net.named_modules() if one]
            raise TutelageError(
                f"tap {name!r} names submodule {before!r}, which {type(net).__name__} does not have; "
                + nearest(before, known)
            )
        children = [child for child, _ in net.get_submodule(counted(net, before)).named_children()]
        if not children:
            raise TutelageError(f"tap {name!r}: {before!r} of {type(net).__name__} has no children to expand to")
        found |= {name.replace("{}", child): path.replace("{}", child) for child in children}
    return found
