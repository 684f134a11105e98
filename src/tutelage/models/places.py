"""Places in a network and in what it returns: ``layer.2[0]``, ``head.input``, ``[1]``, ``logits``, ``blocks.{}``."""

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
    """Returns the tensor at ``path`` in what a module returned: ``logits``, ``[0]``, ``hidden_states[-1]``.

    Args:
        value: a tuple, list, mapping, dataclass or object with attributes, nested in any way; with an empty path a
            tensor.
        path: indices and keys in brackets, names of keys or attributes with dots between them.
        what: of whom an error speaks.

    Raises:
        TutelageError: nothing is there, or no tensor; names what there is.
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
    """Returns the type of what a module returned and the names of its parts."""
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
    """Returns a path that may lead on in ``value``, as a message says it."""
    names = _names(value)
    if not names:
        return "such as [0]"
    return "such as " + ("logits" if "logits" in names else names[0])


@dataclass(frozen=True)
class Place:
    """A tensor that a network computes on its way.

    Attributes:
        module: path of the submodule.
        of_input: whether it is what the submodule gets (its first argument), and not what it gives.
        elements: where in that: ``[0]``, ``[0][1]``, ``[hidden]``; empty for all of it.
    """

    module: str
    of_input: bool
    elements: str


def place(net: nn.Module, path: str) -> Place:
    """Returns the place that ``path`` names: a submodule, then perhaps ``.input``, then perhaps elements in brackets.

    A submodule may be counted from the last one: ``blocks.-1``. A submodule that is itself called ``input`` goes first.
    """
    elements = _ELEMENTS.search(path)
    assert elements is not None  # it matches nothing, too
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
    """Returns ``path`` with the name of a child wherever it counts from the last one."""
    module, names = net, []
    for part in path.split("."):
        children = list(dict(module.named_children()))
        names.append(children[int(part)] if _FROM_LAST.fullmatch(part) and -int(part) <= len(children) else part)
        module = getattr(module, names[-1], module)
    return ".".join(names)


def expanded(net: nn.Module, taps: Mapping[str, str]) -> dict[str, str]:
    """Returns the taps with ``{"layer{}": "encoder.layer.{}"}`` replaced by one for each child: layer0, layer1, ….

    Raises:
        TutelageError: a pattern without its counterpart, or for a module that has no children.
    """
    found: dict[str, str] = {}
    for name, path in taps.items():
        if "{}" not in name and "{}" not in path:
            found[name] = path
            continue
        if name.count("{}") != 1 or path.count("{}") != 1:
            raise TutelageError(f"tap {name!r}: {path!r}: a pattern has {{}} once in the tap and once in the path")
        before = path.split("{}")[0].rstrip(".")
        if not _has(net, counted(net, before)):
            known = [one for one, _ in net.named_modules() if one]
            raise TutelageError(
                f"tap {name!r} names submodule {before!r}, which {type(net).__name__} has not; {nearest(before, known)}"
            )
        children = [child for child, _ in net.get_submodule(counted(net, before)).named_children()]
        if not children:
            raise TutelageError(f"tap {name!r}: {before!r} of {type(net).__name__} has no children to go through")
        found |= {name.replace("{}", child): path.replace("{}", child) for child in children}
    return found
