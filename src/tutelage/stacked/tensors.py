"""Stacks the tensors of many equal modules along a leading dimension."""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import Function

Module = TypeVar("Module", bound=nn.Module)


def stacked(modules: Sequence[Module]) -> Module:
    """Returns a copy of the first module whose parameters and buffers are stacked from all modules: [K, …]."""
    made = deepcopy(modules[0])
    for path, module in made.named_modules():
        own = [one.get_submodule(path) for one in modules]
        for name, parameter in module.named_parameters(recurse=False):
            whole = torch.stack([one.get_parameter(name).detach() for one in own])
            module.register_parameter(name, nn.Parameter(whole, requires_grad=parameter.requires_grad))
        for name, _ in module.named_buffers(recurse=False):
            setattr(module, name, torch.stack([one.get_buffer(name) for one in own]))
    return made


def state_of(whole: nn.Module, index: int) -> dict[str, Tensor]:
    """Returns the state dict of one module of a stacked one."""
    return {name: tensor[index].detach().clone() for name, tensor in whole.state_dict().items()}


def parts_of(whole: Tensor, runs: Sequence[int]) -> list[nn.Parameter]:
    """Returns parameters that share the memory of ``whole`` [K, …], one per run of jobs, for an optimizer to update."""
    ends = torch.tensor([0, *runs]).cumsum(0).tolist()
    return [nn.Parameter(whole.detach()[start:end]) for start, end in pairwise(ends)]


class _Joined(Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, *parts: Tensor) -> Tensor:
        ctx.runs = [len(part) for part in parts]
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *grad.split(ctx.runs)


def joined(whole: Tensor, parts: Sequence[nn.Parameter]) -> Tensor:
    """Returns ``whole`` as a function of its ``parts``, which receive the gradient; nothing is copied."""
    if len(parts) == 1:
        return parts[0]
    made: Tensor = _Joined.apply(whole.detach(), *parts)
    return made
