"""Layers of many networks at once: linear maps as one product, dropout by masks drawn beforehand.

Under ``torch.func.vmap`` torch's linear layer would copy a shared input once for each network, and its dropout would
draw from one generator for all, instead of from each job's own.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from tutelage.seeding import reseed


class _Product(Function):
    """``x wᵀ + b`` of x [*, B, I], w [*, O, I], b [*, O], with gradients in the weights' memory layout."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        y = torch.baddbmm(b.reshape(-1, 1, b.shape[-1]), _flat(x), _flat(w).mT)
        return y.reshape(*x.shape[:-1], w.shape[-2])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        of_x = torch.bmm(_flat(g), _flat(w)).reshape(x.shape) if ctx.needs_input_grad[0] else None
        return of_x, torch.bmm(_flat(g).mT, _flat(x)).reshape(w.shape), g.sum(-2)

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, int]:
        n = info.batch_size
        w, b = (_first(tensor, dim, n) for tensor, dim in zip((w, b), dims[1:], strict=True))
        if dims[0] is not None:
            return _Product.apply(_first(x, dims[0], n), w, b), 0
        y = _Product.apply(x, w.movedim(0, -3).flatten(-3, -2), b.movedim(0, -2).flatten(-2))  # one wide layer
        return y.unflatten(-1, (n, w.shape[-2])), y.dim() - 1


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, *x.shape[-2:])


def _first(x: Tensor, dim: int | None, n: int) -> Tensor:
    return x.expand(n, *x.shape) if dim is None else x.movedim(dim, 0)


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        if self.bias is None or torch.is_autocast_enabled(input.device.type):
            return F.linear(input, self.weight, self.bias)
        rows: Tensor = _Product.apply(input.reshape(-1, self.in_features), self.weight, self.bias)
        return rows.reshape(*input.shape[:-1], self.out_features)


class _Dropout(nn.Dropout):
    masks: list[Tensor]

    def forward(self, input: Tensor) -> Tensor:
        return input * self.masks.pop(0) if self.training else input


class DropoutMasks:
    """Draws the dropout masks of many equal networks, for each job the same as if it were trained alone.

    Alone, a job seeds its generator with (seed, "step", epoch, batch, rank) and draws in the order of its layers.

    Args:
        nets: one network per job.
        seeds: seeds of the jobs.
        example: a batch that the networks accept.
    """

    def __init__(self, nets: Sequence[nn.Module], seeds: Sequence[int], example: Tensor):
        self.seeds = list(seeds)
        layers = [list(_dropouts(net)) for net in nets]
        self.used = [any(peers) for peers in zip(*([layer.p for layer in own] for own in layers), strict=True)]
        calls = [call for call in _calls(nets[0], layers[0], example) if self.used[call[0]]]
        self.rates = [tuple(own[i].p for i, _ in calls) for own in layers]
        self.shapes = [shape for _, shape in calls]

    def install(self, net: nn.Module) -> list[Tensor]:
        """Replaces layers of ``net`` by those of this file, which take their masks from the returned list in order."""
        masks: list[Tensor] = []
        for module in net.modules():
            if type(module) is nn.Linear:
                module.__class__ = _Linear
        for layer, used in zip(list(_dropouts(net)), self.used, strict=True):
            if used:
                layer.__class__ = _Dropout
                layer.masks = masks  # type: ignore[assignment]
        return masks

    def draw(self, epoch: int, batch: int, rows: int, like: Tensor) -> list[Tensor]:
        """Returns the masks of all jobs by call, [K, rows, …], 1/(1 − p) for kept units; on the device of ``like``."""
        if not self.shapes:
            return []
        known: dict[tuple[int, tuple[float, ...]], list[Tensor]] = {}
        for seed, rates in zip(self.seeds, self.rates, strict=True):
            if (seed, rates) not in known:
                reseed(like.device, seed, "step", epoch, batch, 0)
                known[seed, rates] = [_mask(p, (rows, *s), like) for p, s in zip(rates, self.shapes, strict=True)]
        own = [known[key] for key in zip(self.seeds, self.rates, strict=True)]
        return [torch.stack(of_call) for of_call in zip(*own, strict=True)]


def _mask(rate: float, shape: tuple[int, ...], like: Tensor) -> Tensor:
    mask = like.new_empty(shape)
    if rate in (0.0, 1.0):  # torch's dropout draws nothing then
        return mask.fill_(1.0 - rate)
    return mask.bernoulli_(1 - rate).div_(1 - rate)


def _dropouts(net: nn.Module) -> Iterator[nn.Dropout]:
    return (module for module in net.modules() if type(module) is nn.Dropout)


def _calls(net: nn.Module, layers: list[nn.Dropout], example: Tensor) -> list[tuple[int, tuple[int, ...]]]:
    """Returns the index of each called layer in order, with the shape of an example there."""
    calls: list[tuple[int, tuple[int, ...]]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls.append((layers.index(module), tuple(inputs[0].shape[1:])))  # type: ignore[arg-type]

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    with torch.no_grad():
        net(example)
    for hook in hooks:
        hook.remove()
    return calls
