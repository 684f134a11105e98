"""Co-distillation: each network is drawn to the mean prediction of the others' copies."""

import math

import pytest
import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.online.codistillation import Codistillation


def logits(seed: int, networks: int = 3) -> Tensor:
    return torch.randn(5, networks, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softened(row: list[float]) -> list[float]:
    powers = [math.exp(z) for z in row]
    return [p / sum(powers) for p in powers]


@pytest.mark.parametrize("networks", [2, 3, 4])
def test_equals_plain_sums(networks: int):
    z, old = logits(0, networks), logits(1, networks)
    total = 0.0
    for own, copies in zip(z.tolist(), old.tolist(), strict=True):
        for i, row in enumerate(own):
            for j, other in enumerate(copies):
                if i != j:
                    pairs = zip(softened(row), softened(other), strict=True)
                    total -= sum(t * math.log(s) for s, t in pairs) / (networks - 1) / len(z)
    assert Codistillation()(z[:, 0], z[:, 1:], old).item() == pytest.approx(total, rel=1e-9)
    half = Codistillation()(z[:, 0].bfloat16(), z[:, 1:].bfloat16(), old.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(total, rel=2e-2)


def test_the_gradient_is_right_and_does_not_reach_the_copies():
    z, old = logits(0).requires_grad_(), logits(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Codistillation()(x[:, 0], x[:, 1:], old.detach()), z)
    Codistillation()(z[:, 0], z[:, 1:], old).backward()
    assert old.grad is None


def test_a_network_that_predicts_what_the_others_did_has_no_gradient():
    z = logits(0, 1).expand(-1, 3, -1).clone().requires_grad_()
    gradient = torch.autograd.grad(Codistillation()(z[:, 0], z[:, 1:], z.detach()), z)[0]
    assert gradient.abs().max() < 1e-15


def test_other_shapes_are_refused():
    z = logits(0)
    with pytest.raises(TutelageError, match=r"Codistillation: expected peers' logits \[B, K − 1, C\]"):
        Codistillation()(z[:, 0], z[:, 1], z)
    with pytest.raises(TutelageError, match=r"a copy of each network, \[5, 3, 4\]; found \[5, 2, 4\]"):
        Codistillation()(z[:, 0], z[:, 1:], z[:, 1:])
