"""A network whose inner activations, and the parameters behind them, can be read by name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError, nearest
from tutelage.models.places import Place, described, element, example, expanded, place
from tutelage.types import Batch, Signals

Outputs = str | Callable[[Any], Tensor]


def _keep(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    """A module-level hook without captured state: a copied, pickled or compiled network keeps its own taps."""
    module.__dict__["_tap"] = output


def _keep_input(module: nn.Module, inputs: tuple[Any, ...], given: dict[str, Any], output: Any) -> None:
    """Keeps a module's first argument as :func:`_keep` keeps its output."""
    module.__dict__["_tap_input"] = inputs[0] if inputs else next(iter(given.values()))


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


class _Pick:
    """A hook that makes a network return its logits alone, where it returns several things."""

    def __init__(self, outputs: Outputs):
        self.outputs = outputs

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Tensor:
        if isinstance(self.outputs, str):
            return element(output, self.outputs, type(module).__name__)
        return self.outputs(output)


class _Classes:
    """A hook that makes the logits of a network's own classes those of the data's."""

    def __init__(self, classes: Sequence[int | Sequence[int]]):
        self.classes = [[one] if isinstance(one, int) else [int(index) for index in one] for one in classes]
        named = [index for one in self.classes for index in one]
        if not all(self.classes) or min(named, default=0) < 0 or len(set(named)) < len(named):
            raise TutelageError(
                "classes must be indices of the network's own, from 0 on and each once, one or a list for each class "
                f"of the data; found {[*classes]}"
            )

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if (highest := max(map(max, self.classes))) >= output.shape[-1]:
            raise TutelageError(
                f"classes: {type(module).__name__} has classes 0 to {output.shape[-1] - 1}; found {highest}"
            )
        if all(len(one) == 1 for one in self.classes):
            return output[..., [one[0] for one in self.classes]]
        return torch.stack([output[..., one].logsumexp(-1) for one in self.classes], -1)


def tapped(net: nn.Module) -> "Tapped":
    """``net`` itself, or around a plain module one without taps: it has logits."""
    return net if isinstance(net, Tapped) else Tapped(net)


def run(net: nn.Module, batch: Batch) -> Any:
    """Returns what ``net`` gives for a batch."""
    positional, named = arguments(net, batch)
    return net(*positional, **named)


def arguments(net: nn.Module, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Returns what ``net`` is called with: the fields that it reads by name, or ``input`` alone.

    Raises:
        TutelageError: it reads a field that the batch has not.
    """
    reads: Mapping[str, str] | None = net.__dict__.get("_reads")
    if reads is None:
        return (batch["input"],), {}
    for field in reads.values():
        if field not in batch:
            raise TutelageError(
                f"{type(net).__name__} reads the field {field!r}, which a batch has not; {nearest(field, batch)}"
            )
    return (), {name: batch[field] for name, field in reads.items()}


def _check_arguments(net: nn.Module, names: Iterable[str]) -> None:
    taken = signature(net.forward).parameters
    if any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        return
    for name in names:
        if name not in taken:
            raise TutelageError(f"reads: {type(net).__name__}.forward takes no {name!r}; {nearest(name, taken)}")


class Tapped(nn.Module):
    """A network plus its vocabulary.

    A signal is ``logits`` (what the network returns), the name of a tap (the output of that submodule), or
    ``<tap>.<parameter>`` (a parameter or buffer of that submodule, such as ``classifier.weight``).

    Args:
        net: maps [B, …] to logits.
        taps: tap name → submodule path, in which -1 is the last child. ``block[0]`` is the first element of what a
            submodule returns, ``head.input`` its first argument; ``{"layer{}": "encoder.layer.{}"}`` gives every child
            a tap: layer0, layer1, …. Only taps that are asked for are hooked.
        adapter: what is done to x first (:mod:`tutelage.models.adapter`): the network computes net(adapter(x)). It
            hangs on ``net`` itself, so that whoever runs that alone, to predict or to count its cost, gives it the same
            images; but its weights, digest and state are not the adapter's, which has none.
        maps: the taps that losses over stages read where they are not told, from the shallowest to the deepest.
        reads: argument of the network → field of the batch, such as ``{pixel_values: input, attention_mask: mask}``.
            By default the first argument is ``input``.
        outputs: where in what the network returns its logits are: ``logits``, ``[0]``, ``heads[main]``, or a function
            of it. By default it returns them.
        classes: for each class of the data the network's own class, or several whose probabilities add up: a network
            of a thousand classes teaches the five in ``[281, [151, 152], 8, 9, 10]``. By default they are the same.

    Raises:
        TutelageError: a tap that names no submodule, an argument that ``forward`` does not take, or an adapter with
            a state.
    """

    def __init__(
        self,
        net: nn.Module,
        taps: Mapping[str, str] | None = None,
        adapter: nn.Module | None = None,
        maps: Sequence[str] = (),
        reads: Mapping[str, str] | None = None,
        outputs: Outputs | None = None,
        classes: Sequence[int | Sequence[int]] | None = None,
    ):
        super().__init__()
        self.net, self.taps, self.adapter, self.maps = net, expanded(net, taps or {}), adapter, list(maps)
        if adapter is not None:
            if state := sorted({*adapter.state_dict(), *dict(adapter.named_parameters())}):
                raise TutelageError(f"an adapter is not trained and not saved: it must have no state; found {state}")
            net.register_forward_pre_hook(_Adapt(adapter))
        if reads is not None:
            if adapter is not None:
                raise TutelageError("an adapter changes a network's first argument: it goes without reads")
            _check_arguments(net, reads)
            net.__dict__["_reads"] = dict(reads)
        if outputs is not None:
            net.register_forward_hook(_Pick(outputs))
        if classes is not None:
            net.register_forward_hook(_Classes(classes))
        self.wanted: list[str] = []
        self.parameters_wanted: list[str] = []
        self._places: dict[str, Place] = {}
        self._kept: dict[tuple[str, bool], str] = {}  # (submodule, whether of its input) → where a hook lays it down
        for name, path in self.taps.items():
            self._places[name] = found = place(net, path)
            self._submodule(name, found.module)
            self.taps[name] = found.module + (".input" if found.of_input else "") + found.elements

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
                self._hook(name)
                self.wanted.append(name)
            else:
                self._parameter(name)
                self.parameters_wanted.append(name)

    def _hook(self, tap: str) -> None:
        one = self._places[tap]
        if (one.module, one.of_input) in self._kept:  # two taps may share a submodule
            return
        module = self._submodule(tap, one.module)
        if one.of_input:
            module.register_forward_hook(_keep_input, with_kwargs=True)
        else:
            module.register_forward_hook(_keep)
        self._kept[one.module, one.of_input] = "_tap_input" if one.of_input else "_tap"

    def _parameter(self, name: str) -> Tensor:
        tap, _, attribute = name.rpartition(".")
        value = getattr(self.net.get_submodule(self._places[tap].module), attribute, None) if tap in self.taps else None
        if not isinstance(value, Tensor):
            raise TutelageError(
                f"no tap {name!r} in {type(self.net).__name__}; {nearest(name, ['logits', *self.taps])}"
            )
        return value

    def forward(self, batch: Tensor | Batch) -> Signals:
        """Returns logits and the signals asked for.

        Args:
            batch: of examples; a tensor is their ``input``.
        """
        logits = run(self.net, {"input": batch} if isinstance(batch, Tensor) else batch)
        if not isinstance(logits, Tensor):
            raise TutelageError(
                f"{type(self.net).__name__} gives {described(logits)}; say where its logits are with outputs of "
                f"tutelage.models.tapped.Tapped, {example(logits)}"
            )
        signals = {"logits": logits}
        kept = {key: self.net.get_submodule(key[0]).__dict__.pop(slot) for key, slot in self._kept.items()}
        for name in self.wanted:
            one = self._places[name]
            value = kept[one.module, one.of_input]
            plain = not one.elements and isinstance(value, Tensor)
            signals[name] = value if plain else element(value, one.elements, f"tap {name!r}, {self.taps[name]!r},")
        for name in self.parameters_wanted:
            signals[name] = self._parameter(name)
        return signals
