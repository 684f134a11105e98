"""Networks that are trained in the student's place, of which only the plain student is written, measured and used."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError, nearest
from tutelage.models.places import place
from tutelage.models.tapped import Tapped


class Wrapper(nn.Module):
    """Base of a network for training around a student, whose logits it returns.

    In a config, ``student`` is that of the plain student, which the files of weights carry.

    Args:
        student: the plain student.
    """

    def __init__(self, student: nn.Module):
        super().__init__()
        self.student = student

    def deployed(self) -> nn.Module:
        """Returns the plain student, whose logits in eval mode are the wrapper's to the bit."""
        return self.student


def deployed(net: nn.Module) -> nn.Module:
    """Returns the network that is written and measured: a wrapper's plain student, any other network itself."""
    return net.deployed() if isinstance(net, Wrapper) else net


def paths_of(student: Tapped, taps: Sequence[str], what: str) -> list[str]:
    """Returns the paths of the submodules whose whole outputs are the taps.

    Args:
        student: the tapped student.
        taps: their names.
        what: name of the method, for messages.

    Raises:
        TutelageError: there is no such tap, or it is an element of an output or an input.
    """
    paths = []
    for tap in taps:
        if tap not in student.taps:
            raise TutelageError(f"{what}: no tap {tap!r} in {type(student.net).__name__}; {nearest(tap, student.taps)}")
        found = place(student.net, student.taps[tap])
        if found.of_input or found.elements:
            raise TutelageError(
                f"{what}: tap {tap!r} is {student.taps[tap]!r}; expected the whole output of a submodule"
            )
        paths.append(found.module)
    return paths


def with_features(net: nn.Module, paths: Sequence[str], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Returns the output of a network for ``x`` and the outputs of some of its submodules.

    Hooks are there for this call alone, so that the plain network keeps nothing.
    """
    kept: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        hook = lambda module, inputs, output: kept.update({path: output})  # noqa: E731
        return net.get_submodule(path).register_forward_hook(hook)

    handles = [keep(path) for path in dict.fromkeys(paths)]
    try:
        output: Tensor = net(x)
    finally:
        for handle in handles:
            handle.remove()
    return output, [kept[path] for path in paths]


def tried(net: nn.Module, paths: Sequence[str], input_shape: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Returns logits and features of two empty examples, in eval mode, to size what is built on them.

    Args:
        net: the student.
        paths: of the submodules whose outputs are the features.
        input_shape: of one example.
    """
    with torch.no_grad():
        found = with_features(net.eval(), paths, torch.zeros(2, *input_shape))
    net.train()
    return found
