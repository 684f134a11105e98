"""A network whose inner activations, and the parameters behind them, can be read by name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from tutelage.errors import TutelageError, nearest
from tutelage.types import Signals

_FROM_LAST = re.compile(r"-[1-9]\d*")


def _keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """A module-level hook without captured state: a copied, pickled or compiled network keeps its own taps."""
    module.__dict__["_tap"] = output


class _Adapt:
    """A hook that changes a network's input; a class, so that a copied or pickled network has a copy of its adapter."""

    def __init__(self, adapter: nn.Module):
        self.adapter = adapter

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self.adapter(inputs[0]), *inputs[1:])


@runtime_checkable
class ReadsSources(Protocol):
    """A student that takes a part of another source's network."""

    def on_sources_ready(self, sources: Mapping[str, Any]) -> None:
        """Called once, before the first step, with every :class:`tutelage.sources.base.Source` by name."""


def tapped(net: nn.Module) -> "Tapped":
    """``net`` itself, or around a plain module one without taps: it has logits."""
    return net if isinstance(net, Tapped) else Tapped(net)


class Tapped(nn.Module):
    """A network plus its vocabulary.

    A signal is ``logits`` (what the network returns), the name of a tap (the output of that submodule), or
    ``<tap>.<parameter>`` (a parameter or buffer of that submodule, such as ``classifier.weight``).

    Args:
        net: maps [B, …] to logits.
        taps: tap name → submodule path, in which -1 is the last child. Only taps that are asked for are hooked.
        adapter: what is done to x first (:mod:`tutelage.models.adapter`): the network computes net(adapter(x)). It
            hangs on ``net`` itself, so that whoever runs that alone, to predict or to count its cost, gives it the same
            images; but its weights, digest and state are not the adapter's, which has none.
        maps: the taps that losses over stages read where they are not told, from the shallowest to the deepest.

    Raises:
        TutelageError: a tap that names no submodule, or an adapter with a state.
    """

    def __init__(
        self,
        net: nn.Module,
        taps: Mapping[str, str] | None = None,
        adapter: nn.Module | None = None,
        maps: Sequence[str] = (),
    ):
        super().__init__()
        self.net, self.taps, self.adapter, self.maps = net, dict(taps or {}), adapter, list(maps)
        if adapter is not None:
            if state := sorted({*adapter.state_dict(), *dict(adapter.named_parameters())}):
                raise TutelageError(f"an adapter is not trained and not saved: it must have no state; found {state}")
            net.register_forward_pre_hook(_Adapt(adapter))
        self.wanted: list[str] = []
        self.parameters_wanted: list[str] = []
        for name, path in self.taps.items():
            self.taps[name] = self._counted(path)
            self._submodule(name, self.taps[name])

    def _counted(self, path: str) -> str:
        """``path`` with the name of a child wherever it counts from the last one."""
        module, names = self.net, []
        for part in path.split("."):
            children = list(dict(module.named_children()))
            names.append(children[int(part)] if _FROM_LAST.fullmatch(part) and -int(part) <= len(children) else part)
            module = getattr(module, names[-1], module)
        return ".".join(names)

    def _submodule(self, tap: str, path: str) -> nn.Module:
        try:
            return self.net.get_submodule(path)
        except AttributeError:
            known = [name for name, _ in self.net.named_modules() if name]
            raise TutelageError(
                f"tap {tap!r} names submodule {path!r}, which {type(self.net).__name__} has not; {nearest(path, known)}"
            ) from None

    def register_taps(self, names: Iterable[str]) -> None:
        """Asks for signals before the first step.

        Raises:
            TutelageError: a name that is no signal, with near matches.
        """
        for name in sorted(set(names) - {"logits", *self.wanted, *self.parameters_wanted}):
            if name in self.taps:
                if self.taps[name] not in {self.taps[other] for other in self.wanted}:
                    self._submodule(name, self.taps[name]).register_forward_hook(_keep)
                self.wanted.append(name)
            else:
                self._parameter(name)
                self.parameters_wanted.append(name)

    def _parameter(self, name: str) -> Tensor:
        tap, _, attribute = name.rpartition(".")
        value = getattr(self.net.get_submodule(self.taps[tap]), attribute, None) if tap in self.taps else None
        if not isinstance(value, Tensor):
            raise TutelageError(
                f"no tap {name!r} in {type(self.net).__name__}; {nearest(name, ['logits', *self.taps])}"
            )
        return value

    def forward(self, x: Tensor) -> Signals:
        """Logits and the signals asked for."""
        signals = {"logits": self.net(x)}
        tapped = {path: self.net.get_submodule(path) for path in {self.taps[name] for name in self.wanted}}
        kept = {path: module.__dict__.pop("_tap") for path, module in tapped.items()}  # two taps may share a submodule
        signals |= {name: kept[self.taps[name]] for name in self.wanted}
        for name in self.parameters_wanted:
            signals[name] = self._parameter(name)
        return signals
