"""A wrapper that makes a network's inner activations and their parameters readable by name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tutelage.checkpoints.weights import load_into
from tutelage.errors import TutelageError, nearest
from tutelage.models.fewer_channels import FewerChannels
from tutelage.models.first_layers import FirstLayers
from tutelage.models.places import Place, described, element, example, expanded, place
from tutelage.types import Batch, Signals

Outputs = str | Callable[[Any], Tensor]


def _keep(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    """Keeps a module's output; a stateless hook, so that copied, pickled or compiled networks keep their taps."""
    module.__dict__["_tap"] = output


def _keep_input(module: nn.Module, inputs: tuple[Any, ...], given: dict[str, Any], output: Any) -> None:
    """Keeps a module's first argument as :func:`_keep` keeps its output."""
    module.__dict__["_tap_input"] = inputs[0] if inputs else next(iter(given.values()))


class _Adapt:
    """A hook that adapts a network's input; a class, so that a copied or pickled network copies its adapter."""

    def __init__(self, adapter: nn.Module):
        self.adapter = adapter

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self.adapter(inputs[0]), *inputs[1:])


@runtime_checkable
class ReadsSources(Protocol):
    """A student that reuses a part of another source's network."""

    def on_sources_ready(self, sources: Mapping[str, Any]) -> None:
        """Receives every :class:`tutelage.sources.base.Source` by name, once, before the first step."""


class Quantiser(Protocol):
    """Makes a quantised network of a plain one (:mod:`tutelage.models.quantised.schemes`)."""

    def of(self, student: nn.Module) -> nn.Module:
        """Returns a network with ``student`` as its child of that name."""


class _Pick:
    """A hook that makes a network return its logits only."""

    def __init__(self, outputs: Outputs):
        self.outputs = outputs

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Tensor:
        if isinstance(self.outputs, str):
            return element(output, self.outputs, type(module).__name__)
        return self.outputs(output)


class _Classes:
    """A hook that converts the logits of a network's own classes to those of the data's."""

    def __init__(self, classes: int | Sequence[int | Sequence[int]]):
        if isinstance(classes, int):
            classes = range(classes)
        self.classes = [[one] if isinstance(one, int) else [int(index) for index in one] for one in classes]
        named = [index for one in self.classes for index in one]
        if not self.classes or not all(self.classes) or min(named, default=0) < 0 or len(set(named)) < len(named):
            raise TutelageError(
                "classes must be distinct indices of the network's classes, one or a list for each class "
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


def _load(net: nn.Module, pretrained: str | Mapping[str, Any]) -> str:
    """Loads the weights that a network starts from; returns a text for a log."""
    given = {"file": pretrained} if isinstance(pretrained, str) else {str(key): pretrained[key] for key in pretrained}
    known = ("file", *list(signature(load_into).parameters)[2:])
    for key in given:
        if key not in known:
            raise TutelageError(f"pretrained takes no {key!r}; {nearest(key, known)}")
    if not isinstance(file := given.pop("file", None), str):
        raise TutelageError(f"pretrained must be a file of weights, or {{file: …, key: …}}; found {pretrained!r}")
    place = load_into(net, file, **given)
    return f"weights loaded from {file}{': ' if place else ''}{place}"


def tapped(net: nn.Module) -> "Tapped":
    """Returns ``net``, wrapped without taps if it is a plain module."""
    return net if isinstance(net, Tapped) else Tapped(net)


def run(net: nn.Module, batch: Batch) -> Any:
    """Returns the output of ``net`` for a batch."""
    positional, named = arguments(net, batch)
    return net(*positional, **named)


def arguments(net: nn.Module, batch: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Returns the arguments for ``net``: the fields that it reads by name, or only ``input``.

    Raises:
        TutelageError: it reads a field that the batch does not have.
    """
    reads: Mapping[str, str] | None = net.__dict__.get("_reads")
    if reads is None:
        return (batch["input"],), {}
    for field in reads.values():
        if field not in batch and not field.endswith("?"):
            raise TutelageError(
                f"{type(net).__name__} reads the field {field!r}, which a batch does not have; {nearest(field, batch)}"
            )
    found = {name: field.removesuffix("?") for name, field in reads.items()}
    return (), {name: batch[field] for name, field in found.items() if field in batch}


def _check_arguments(net: nn.Module, names: Iterable[str]) -> None:
    taken = signature(net.forward).parameters
    if any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        return
    for name in names:
        if name not in taken:
            raise TutelageError(f"reads: {type(net).__name__}.forward takes no {name!r}; {nearest(name, taken)}")


def _narrowed(net: nn.Module, channels: FewerChannels, adapter: nn.Module | None, reads: object) -> nn.Module:
    if reads is not None:
        raise TutelageError("channels: a network that reads fields by name can't be pruned by channels")
    return channels.of(net, adapter)


class Tapped(nn.Module):
    """A network with named signals.

    A signal is ``logits`` (the network's output), the name of a tap (the output of that submodule), or
    ``<tap>.<parameter>`` (a parameter or buffer of that submodule, such as ``classifier.weight``).

    Args:
        net: maps [B, …] to logits.
        taps: tap name → submodule path, in which -1 is the last child. ``block[0]`` is the first element of a
            submodule's output, ``head.input`` its first argument; ``{"layer{}": "encoder.layer.{}"}`` gives every child
            a tap: layer0, layer1, … (``*`` may stand for ``{}``). Only requested taps are hooked.
        adapter: applied to x first (:mod:`tutelage.models.adapter`): the network computes net(adapter(x)). It
            is hooked to ``net`` itself, so that running ``net`` alone, to predict or to count its cost, uses the same
            images. It has no weights or state of its own.
        maps: the taps that losses over stages read by default, from the shallowest to the deepest.
        reads: argument of the network → field of the batch, such as ``{pixel_values: input, attention_mask: mask}``.
            By default the first argument is ``input``. A field ``mask?`` is left out where the batch lacks it.
        outputs: where the logits are in the network's output: ``logits``, ``[0]``, ``heads[main]``, or a function
            of it. By default the output is the logits.
        classes: for each class of the data the network's class, or several whose probabilities are added: a network
            of a thousand classes can teach five by ``[281, [151, 152], 8, 9, 10]``. A number: the first so many, as
            of a language model whose vocabulary is padded. By default they are the same.
        pretrained: a file of weights that ``net`` starts from, or ``{file: …}`` with options of
            :func:`tutelage.checkpoints.weights.load_into` (``key``, ``prefix``, ``rename``, ``strict``).
        init: ``{layers: [0, 2, 4], from: teacher}``: as a student, start from these layers of that source's network and
            all that is around them (:class:`~tutelage.models.first_layers.FirstLayers`); ``tutelage distill`` copies
            them, for the control too.
        quantised: makes the network compute with few bits (:mod:`tutelage.models.quantised.schemes`).
        channels: removes channels of the network, after ``pretrained`` is loaded
            (:class:`~tutelage.models.fewer_channels.FewerChannels`).

    Raises:
        TutelageError: a tap does not name a submodule, ``forward`` does not take an argument, or an adapter has
            a state.

    Examples:
        >>> import torch, tutelage as tt
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> tapped = tt.Tapped(net, taps={"hidden": "1"})
        >>> tapped.register_taps(["hidden"])  # what a Distillation requests for the terms that read it
        >>> {name: tuple(signal.shape) for name, signal in tapped(torch.randn(2, 4)).items()}
        {'logits': (2, 3), 'hidden': (2, 8)}
    """

    def __init__(
        self,
        net: nn.Module,
        taps: Mapping[str, str] | None = None,
        adapter: nn.Module | None = None,
        maps: Sequence[str] = (),
        reads: Mapping[str, str] | None = None,
        outputs: Outputs | Sequence[int | str] | None = None,
        classes: int | Sequence[int | Sequence[int]] | None = None,
        pretrained: str | Mapping[str, Any] | Literal[False] | None = None,
        init: Mapping[str, Any] | None = None,
        quantised: Quantiser | None = None,
        channels: FewerChannels | None = None,
    ):
        super().__init__()
        self.first_layers = FirstLayers.of(init)
        self.loaded = _load(net, pretrained) if pretrained else ""
        self.channels = channels
        net = net if channels is None else _narrowed(net, channels, adapter, reads)
        whole = net if quantised is None else quantised.of(net)
        taps = taps or {} if quantised is None else {tap: f"student.{path}" for tap, path in (taps or {}).items()}
        self.net, self.taps, self.adapter, self.maps = whole, expanded(whole, taps), adapter, list(maps)
        if adapter is not None:
            if state := sorted({*adapter.state_dict(), *dict(adapter.named_parameters())}):
                raise TutelageError(f"an adapter is not trained and not saved: it must have no state; found {state}")
            net.register_forward_pre_hook(_Adapt(adapter))
        if reads is not None:
            if adapter is not None:
                raise TutelageError("an adapter changes a network's first argument: it cannot be combined with reads")
            _check_arguments(net, reads)
            net.__dict__["_reads"] = whole.__dict__["_reads"] = dict(reads)
        if outputs is not None:
            if isinstance(outputs, Sequence) and not isinstance(outputs, str):  # [0] without quotes
                outputs = "".join(f"[{part}]" for part in outputs)
            net.register_forward_hook(_Pick(outputs))
        if classes is not None:
            net.register_forward_hook(_Classes(classes))
        self.wanted: list[str] = []
        self.parameters_wanted: list[str] = []
        self._places: dict[str, Place] = {}
        self._kept: dict[
            tuple[str, bool], str
        ] = {}  # (submodule, whether of its input) → attribute where a hook stores it
        for name, path in self.taps.items():
            self._places[name] = found = place(whole, path)
            self._submodule(name, found.module)
            self.taps[name] = found.module + (".input" if found.of_input else "") + found.elements

    def _submodule(self, tap: str, path: str) -> nn.Module:
        try:
            return self.net.get_submodule(path)
        except AttributeError:
            known = [name for name, _ in self.net.named_modules() if name]
            raise TutelageError(
                f"tap {tap!r} names submodule {path!r}, which {type(self.net).__name__} does not have; "
                + nearest(path, known)
            ) from None

    def register_taps(self, names: Iterable[str]) -> None:
        """Requests signals before the first step.

        Raises:
            TutelageError: a name is not a signal; lists near matches.
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
                f"no tap {name!r} in {type(self.net).__name__}; {nearest(name, ['logits', *self.taps])} (`taps` of its "
                "config names more)"
            )
        return value

    def forward(self, batch: Tensor | Batch) -> Signals:
        """Returns logits and the requested signals.

        Args:
            batch: a batch of examples; a tensor is their ``input``.
        """
        logits = run(self.net, {"input": batch} if isinstance(batch, Tensor) else batch)
        if not isinstance(logits, Tensor):
            raise TutelageError(
                f"{type(self.net).__name__} returns {described(logits)}; set where its logits are by outputs of "
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
