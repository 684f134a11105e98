"""Networks that a user may bring: ``model@student`` by ``_target_``."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """Any ``nn.Module``, which knows nothing of taps."""

    def __init__(self, width: int = 4, classes: int = 10):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, classes))
        self.layers(torch.zeros(1, 1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class NeedsValues(Plain):
    """Its forward reads a number out of a tensor, so that it can't be run on shapes alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / max(1.0, x.abs().max().item()))


class OneRow(nn.Module):
    """One row of logits whatever the batch: [1, C] would broadcast against [B, C]."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits + 0.0 * x.sum()


@dataclass
class Output:
    """The output of :class:`Several`."""

    scores: torch.Tensor
    states: tuple[torch.Tensor, ...]


class Several(nn.Module):
    """Takes its pixels by name and returns a dataclass; its layers return tuples."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.ModuleList([Layer(64, width), Layer(width, width)])
        self.head = nn.Linear(width, 10)

    def forward(self, *, pixels: torch.Tensor, weights: torch.Tensor | None = None) -> Output:
        x, states = pixels.flatten(1), []
        if weights is not None:
            x = x * (1 + weights.float()[:, None] / 255)
        for layer in self.layers:
            x, _ = layer(x)
            states.append(x)
        return Output(self.head(x), tuple(states))


class Layer(nn.Module):
    """Returns (activation, its largest value)."""

    def __init__(self, inner: int, outer: int):
        super().__init__()
        self.linear = nn.Linear(inner, outer)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.linear(x).relu()
        return x, x.amax(1)
