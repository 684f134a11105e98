"""A network's first weights from some layers of another: a student cut from its teacher, as DistilBERT is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError, nearest

_KEYS = ("layers", "from")
_ALL = "all"


@dataclass(frozen=True)
class FirstLayers:
    """The origin of a student's first weights: ``{layers: [0, 2, 4], from: teacher}``.

    Attributes:
        layers: which of the other network's layers become the student's, in order; None (``layers: all``): every
            weight, by its name, of a network of the same shapes.
        source: the name of the source whose network it is.
    """

    layers: tuple[int, ...] | None
    source: str = "teacher"

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> "FirstLayers | None":
        """Returns it from a config's ``init``.

        Raises:
            TutelageError: another key, or layers that are no indices.
        """
        if given is None:
            return None
        for key in given:
            if key not in _KEYS:
                raise TutelageError(f"student.init takes layers and from; found {key!r}: {nearest(str(key), _KEYS)}")
        source = str(given.get("from", "teacher"))
        if given.get("layers") == _ALL:
            return cls(None, source)
        layers = list(given.get("layers") or ())
        if not layers or any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in layers):
            raise TutelageError(
                f"student.init.layers must be indices of the teacher's layers, from 0, or {_ALL}; found {layers}"
            )
        return cls(tuple(layers), source)

    def copy(self, student: nn.Module, teacher: nn.Module) -> None:
        """Sets the student's weights: its layers from those of the teacher's that are named, all others by their name.

        Raises:
            TutelageError: their numbers of layers do not fit, or a weight of the student has no counterpart of its name
                and shape.
        """
        path = layers_path(student) if self.layers is not None else ""
        known = teacher.state_dict()
        if self.layers is not None:
            self._check_counts(student, teacher, path, self.layers)
        state = {name: self._taken(name, tensor, path, known) for name, tensor in student.state_dict().items()}
        with torch.no_grad():
            student.load_state_dict(state)

    def _check_counts(self, student: nn.Module, teacher: nn.Module, path: str, layers: tuple[int, ...]) -> None:
        own = len(_layers(student, path))
        count = len(_layers(teacher, path))
        if own != len(layers):
            raise TutelageError(
                f"student.init.layers={list(layers)} names {len(layers)} layers; the student has {own}"
                + (f" ({path})" if path else "")
            )
        if max(layers) >= count:
            raise TutelageError(
                f"student.init.layers={list(layers)}: sources.{self.source} has {count} layers at {path!r}"
            )

    def _taken(self, name: str, tensor: Tensor, path: str, known: Mapping[str, Tensor]) -> Tensor:
        theirs = name
        if self.layers is not None and name.startswith(f"{path}."):
            place, _, rest = name.removeprefix(f"{path}.").partition(".")
            theirs = f"{path}.{self.layers[int(place)]}.{rest}"
        if theirs not in known:
            raise TutelageError(
                f"student.init: the student's {name} starts from {theirs}, which sources.{self.source} does not have: "
                "both must be the same kind of network"
            )
        if known[theirs].shape != tensor.shape:
            raise TutelageError(
                f"student.init: the student's {name} is {list(tensor.shape)}, {theirs} of sources.{self.source} is "
                f"{list(known[theirs].shape)}: both must have the same widths"
            )
        return known[theirs]


def layers_path(net: nn.Module) -> str:
    """Returns the path of a network's layers, its longest list of modules; empty where it has none."""
    lists = {path: len(one) for path, one in net.named_modules() if isinstance(one, nn.ModuleList)}
    return max(lists, key=lambda path: lists[path], default="")


def _layers(net: nn.Module, path: str) -> Sequence[nn.Module]:
    try:
        found = net.get_submodule(path) if path else nn.ModuleList()
    except AttributeError:
        return ()
    return list(found) if isinstance(found, nn.ModuleList) else ()
