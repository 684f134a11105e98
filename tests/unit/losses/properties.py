"""Checks that hold for every loss on named tensors, masked ones too."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

Signals = dict[str, Any]  # a name → a tensor or a list of layers


def convert(x: Any, how: Callable[[Tensor], Tensor]) -> Any:
    """Returns the signals with every tensor of floats changed."""
    if isinstance(x, dict):
        return {name: convert(value, how) for name, value in x.items()}
    if isinstance(x, list):
        return [convert(value, how) for value in x]
    return how(x) if isinstance(x, Tensor) and x.is_floating_point() else x


def tensors(x: Any) -> list[Tensor]:
    """Returns all tensors of floats of the signals."""
    found: list[Tensor] = []
    convert(x, lambda one: found.append(one) or one)  # type: ignore[func-returns-value]
    return found


def value(loss: nn.Module, signals: Signals) -> float:
    """Returns the loss as a number."""
    return float(loss(**signals).detach())


def check_gradients(loss: nn.Module, signals: Signals, names: tuple[str, ...]) -> None:
    """Compares the gradients of the named signals, and of what the loss learns, with finite differences."""
    free = [x.requires_grad_() for x in tensors({name: signals[name] for name in names})]
    free += [p for p in loss.parameters() if p.requires_grad]
    assert free
    assert torch.autograd.gradcheck(lambda *_: loss(**signals), free, fast_mode=True)


def check_half_precision(loss: nn.Module, signals: Signals, student: str) -> None:
    """In bf16 and fp16 the value is that of the same numbers in float64, and gradients have the signals' dtype."""
    for dtype in (torch.bfloat16, torch.float16):
        exact = value(loss.double(), convert(signals, lambda x, to=dtype: x.to(to).double()))
        half = convert(signals, lambda x, to=dtype: x.to(to).requires_grad_())
        found = loss.float()(**half)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(exact, rel=1e-3)
        found.backward()
        gradient = tensors(half[student])[0].grad
        assert gradient is not None
        assert gradient.dtype == dtype
        assert gradient.isfinite().all()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(loss(**half), found)
    loss.double()


def check_padding(loss: nn.Module, signals: Signals, masks: dict[str, str], absent: Signals | None = None) -> None:
    """Other numbers, and NaN, where a mask is false leave value and gradients as they are, and get no gradient.

    Args:
        loss: the loss.
        signals: with a mask that is false somewhere.
        masks: name of a signal → name of its mask.
        absent: the same signals without what does not count, if the loss has the same value of them.
    """
    expected = _with_gradients(loss, signals)
    for junk in (7.5, 1e4, -math.inf, math.nan):

        def spoil(x: Tensor, mask: Tensor, junk: float = junk) -> Tensor:
            return x.where(mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim())), junk)

        spoilt = dict(signals)
        for name, mask in masks.items():
            spoilt[name] = convert(signals[name], lambda x, m=signals[mask]: spoil(x, m))
        found = _with_gradients(loss, spoilt)
        assert torch.equal(found[0], expected[0])
        assert all(torch.equal(a, b) for a, b in zip(found[1], expected[1], strict=True))
    for name, mask in masks.items():
        leaves = convert(signals, lambda x: x.detach().clone().requires_grad_())
        loss(**leaves).backward()
        for one in tensors(leaves[name]):
            assert one.grad is not None
            assert not one.grad[~signals[mask]].any()
            assert one.grad[signals[mask]].any()
    if absent is not None:
        assert value(loss, absent) == pytest.approx(float(expected[0]), rel=1e-12)


def _with_gradients(loss: nn.Module, signals: Signals) -> tuple[Tensor, list[Tensor]]:
    leaves = convert(signals, lambda x: x.detach().clone().requires_grad_())
    learned = [p for p in loss.parameters() if p.requires_grad]
    found = loss(**leaves)
    return found.detach(), list(torch.autograd.grad(found, [*tensors(leaves), *learned], allow_unused=False))
