"""A network that computes with rounded weights and activations, and learns those that they were rounded from."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tutelage.compat.torch import BatchNorm
from tutelage.models.quantised.ranges import MovingRange
from tutelage.models.quantised.weights import LearnedPoints


class Quantised(nn.Module):
    """A student that computes with rounded weights, and perhaps with rounded inputs of its layers.

    It is written as it is, with the parameters that learn and the ranges, so that a file of it goes on learning.

    Args:
        student: the plain network, whose parameters learn; they stay as they are.
        weights: name of a parameter → what rounds it.
        inputs: path of a layer → what rounds its first argument.

    Shape:
        as the student's, such as [B, …] → [B, C].

    Attributes:
        frozen: whether ranges and the statistics of batch normalisation are held (:meth:`freeze`).
    """

    frozen = False

    def __init__(self, student: nn.Module, weights: Mapping[str, nn.Module], inputs: Mapping[str, MovingRange]):
        super().__init__()
        self.student, self._names, self._paths = student, list(weights), list(inputs)
        self.rounders, self.ranges = nn.ModuleList(weights.values()), nn.ModuleList(inputs.values())

    @property
    def weights(self) -> dict[str, nn.Module]:
        """Returns what rounds each parameter, by its name in the student."""
        return dict(zip(self._names, self.rounders, strict=True))

    @property
    def inputs(self) -> dict[str, MovingRange]:
        """Returns what rounds the input of each layer, by its path in the student."""
        return dict(zip(self._paths, self.ranges, strict=True))  # type: ignore[arg-type]

    def rounded(self) -> dict[str, Tensor]:
        """Returns the rounded parameters by name, with gradients."""
        weights = {name: self._parameter(name) for name in self._names}
        return {name: _laid_out_like(rounder(weights[name]), weights[name]) for name, rounder in self.weights.items()}

    def _parameter(self, name: str) -> Tensor:
        """Returns a parameter, or what stands in its place: ``get_parameter`` refuses a tensor of functional calls."""
        path, _, own = name.rpartition(".")
        found: Tensor = getattr(self.student.get_submodule(path), own)
        return found

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Returns the student's output with rounded weights and activations."""
        with self._rounding_inputs():
            return functional_call(self.student, self.rounded(), inputs, named)

    @contextmanager
    def _rounding_inputs(self) -> Iterator[None]:
        """Context manager in which layers round their inputs; hooks for a call alone leave the plain network plain."""
        handles = [
            self.student.get_submodule(path).register_forward_pre_hook(_rounds(span))
            for path, span in self.inputs.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def freeze(self, frozen: bool) -> None:
        """Holds ranges and the statistics of batch normalisation, or lets them follow the batches again."""
        for span in self.inputs.values():
            span.frozen = frozen
        self.frozen = frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> "Quantised":
        """Sets the mode; batch normalisation stays in eval mode while it is frozen."""
        super().train(mode)
        if self.frozen:
            for part in self.student.modules():
                if isinstance(part, BatchNorm):
                    part.eval()
        return self

    def on_new_weights(self) -> None:
        """Puts learned points at the quantiles of the weights that the student starts from."""
        for name, rounder in self.weights.items():
            if isinstance(rounder, LearnedPoints):
                rounder.restart(self.student.get_parameter(name))

    def plain(self) -> nn.Module:
        """Returns a copy of the student that has the rounded weights; its inputs are not rounded."""
        copied = deepcopy(self.student)
        with torch.no_grad():
            for name, value in self.rounded().items():
                copied.get_parameter(name).copy_(value)
        return copied


def _laid_out_like(rounded: Tensor, weight: Tensor) -> Tensor:
    """Returns a rounded weight with the strides of the weight: another layout is slower, and gives other bits."""
    if rounded.stride() == weight.stride():
        return rounded
    return torch.empty_strided(weight.shape, weight.stride(), dtype=rounded.dtype, device=rounded.device).copy_(rounded)


def _rounds(span: MovingRange) -> Any:
    return lambda module, inputs: (span(inputs[0]), *inputs[1:])
