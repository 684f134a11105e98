"""Structured pruning: a network with fewer channels, made of a wide one, for ``student.channels``."""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError, first_line, nearest
from tutelage.models.blocks import WITH_UNITS

_OVER_CHANNELS = (nn.LayerNorm, nn.GroupNorm)  # zeros in place of channels change their statistics
_CLOSE = 1e-3  # of the largest logit
_ROUNDING = 1e-9  # 10 · (1 − (1 − 0.1)) is below 1


@dataclass(frozen=True)
class FewerChannels:
    """Removes channels of convolutions and neurons of linear layers, and what depends on them in other layers.

    Of every layer's C channels ⌊keep · C⌋ stay, or all where that is none, so the shapes are a function of the config;
    the weights decide which stay. Channels that must go together, such as those that a residual connection adds, are
    one group, found by the dependency graph of torch-pruning. Channel k of a group of n layers ℓ has the importance

    I_k = 1/n Σ_ℓ Σ_i |w_ℓ[k, i]|^p, w_ℓ[k] being its weights in layer ℓ, and the largest stay. The layers that give the
    logits keep their outputs. The network that is left computes what the wide one does with the removed channels at
    zero, which is checked (not with LayerNorm or GroupNorm).

    Args:
        input_shape: of one example, such as [1, 28, 28]; ``${data.input_shape}``.
        keep: share of the channels that stay, above 0 and at most 1.
        norm: p, 1 or 2.
        round_to: the number of channels that stay is rounded down to its multiple.
        whole: paths of layers that keep all channels.

    Raises:
        TutelageError: a value is out of its range.

    Source: Fang et al., "DepGraph: Towards Any Structural Pruning", 2023, arXiv:2301.12900; with p = 1, of one layer,
    Li et al., "Pruning Filters for Efficient ConvNets", 2017, arXiv:1608.08710.
    """

    input_shape: Sequence[int]
    keep: float = 0.5
    norm: int = 2
    round_to: int = 1
    whole: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.keep, bool) or not isinstance(self.keep, int | float) or not 0 < self.keep <= 1:
            raise TutelageError(f"channels.keep must be a number above 0 and ≤ 1; found {self.keep!r}")
        if self.norm not in (1, 2):
            raise TutelageError(f"channels.norm must be 1 or 2; found {self.norm!r}")
        if isinstance(self.round_to, bool) or not isinstance(self.round_to, int) or self.round_to < 1:
            raise TutelageError(f"channels.round_to must be a whole number ≥ 1; found {self.round_to!r}")

    def of(self, net: nn.Module, adapter: nn.Module | None = None) -> nn.Module:
        """Returns the network with fewer channels; the given one is changed.

        Args:
            net: reads [B, *input_shape].
            adapter: is applied to its input.

        Raises:
            TutelageError: torch-pruning is not installed, a layer of ``whole`` is not there, no channel can be
                removed, or what is left does not compute what the wide network does without the removed channels.
        """
        if self.keep == 1:
            return net
        library, name, training = _library(), type(net).__name__, net.training
        example = torch.randn(2, *self.input_shape, generator=torch.Generator().manual_seed(0))
        example = example if adapter is None else adapter(example)
        kept = self._kept(net)
        before = sum(one.numel() for one in net.parameters())
        try:
            with warnings.catch_warnings(), torch.enable_grad():
                warnings.simplefilter("ignore")  # of parameters outside layers: what comes of them is checked
                masked = self._prune(library, net.eval(), example, kept)
            with torch.no_grad():
                found, expected = _logits(net(example)), _logits(masked(example))
        except Exception as error:
            raise TutelageError(f"channels: {name} can't be pruned by channels: {first_line(error)}") from error
        net.train(training)
        if before == sum(one.numel() for one in net.parameters()):
            raise TutelageError(f"channels: {name} has no channels that can be removed at keep={self.keep:g}")
        exact = not any(isinstance(one, _OVER_CHANNELS) for one in net.modules())
        if exact and not (found - expected).abs().max() <= _CLOSE * expected.abs().max():  # nor NaN
            raise TutelageError(
                f"channels: {name} can't be pruned by channels: it mixes channels in a way that is not followed"
            )
        return net

    def as_in(self, student: nn.Module, wide: nn.Module) -> nn.Module:
        """Returns a network whose weights fit a student with fewer channels.

        Args:
            student: the student's network.
            wide: of the same shapes, or of those before channels were removed; it stays as it is.
        """
        shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (student, wide)]
        return wide if shapes[0] == shapes[1] else self.of(deepcopy(wide).requires_grad_(True))

    def _kept(self, net: nn.Module) -> list[nn.Module]:
        known = dict(net.named_modules())
        for path in self.whole:
            if path not in known:
                raise TutelageError(f"channels.whole: {nearest(path, [one for one in known if one])}")
        return [known[path] for path in self.whole]

    def _prune(self, library: Any, net: nn.Module, example: Tensor, kept: list[nn.Module]) -> nn.Module:
        """Removes the channels; returns a copy of the wide network in which they are zero."""
        masked, names = deepcopy(net), {module: name for name, module in net.named_modules()}
        pruner = library.pruner.BasePruner(
            net, example, importance=library.importance.GroupMagnitudeImportance(p=self.norm), round_to=self.round_to,
            pruning_ratio=1 - self.keep - _ROUNDING, ignored_layers=[*kept, *_last(net, example)],
        )  # fmt: skip
        for group in pruner.step(interactive=True):
            for dependency, channels in group:
                if dependency.target.module in names:
                    outputs = pruner.DG.is_out_channel_pruning_fn(dependency.handler)
                    _zero(masked.get_submodule(names[dependency.target.module]), channels, outputs)
            group.prune()
        return masked


def _last(net: nn.Module, example: Tensor) -> list[nn.Module]:
    """Returns the layers whose output is the network's, else the last one with as many outputs."""
    seen: list[tuple[nn.Module, Tensor]] = []
    layers = [one for one in net.modules() if isinstance(one, WITH_UNITS)]
    hooks = [one.register_forward_hook(lambda module, _, output: seen.append((module, output))) for one in layers]
    try:
        with torch.no_grad():
            logits = _logits(net(example))
    finally:
        for hook in hooks:
            hook.remove()
    as_many = [module for module, output in seen if output.shape[1] == logits.shape[1]]
    return [module for module, output in seen if output is logits] or as_many[-1:]


def _logits(output: Any) -> Tensor:
    """Returns the first tensor of a network's output."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output


def _zero(layer: nn.Module, channels: Sequence[int], outputs: bool) -> None:
    """Sets a layer's weights of some channels, of its outputs or inputs, to zero."""
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    with torch.no_grad():
        if outputs:
            for one in (weight, bias):
                if one is not None:
                    one[channels] = 0
        elif isinstance(layer, WITH_UNITS) and getattr(layer, "groups", 1) == 1:
            layer.weight[:, channels] = 0


def _library() -> Any:
    try:
        import torch_pruning
    except ImportError:
        raise TutelageError("prune=channels needs torch-pruning: pip install 'tutelage[prune]'") from None
    return torch_pruning
