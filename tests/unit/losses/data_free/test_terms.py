"""The terms of generators and their students, against plain sums."""

import math

import pytest
import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.data_free.dafl import Activation, ClassBalance, OneHot
from tutelage.losses.data_free.distances import ElementKL, LogitL1


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def shares(row: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(z / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def one_hot(logits: Tensor) -> float:
    return -sum(math.log(max(shares(row))) for row in logits.tolist()) / len(logits)


def balance(logits: Tensor) -> float:
    mean = [sum(column) / len(logits) for column in zip(*map(shares, logits.tolist()), strict=True)]
    return sum(p * math.log10(p) for p in mean)


def activation(feature: Tensor) -> float:
    return -sum(map(abs, feature.flatten().tolist())) / feature.numel()


def l1(student: Tensor, teacher: Tensor) -> float:
    pairs = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    return sum(abs(s - t) for s, t in pairs) / student.numel()


def element_kl(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> float:
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        pairs = zip(shares(t, temperature), shares(s, temperature), strict=True)
        total += sum(q * math.log(q / p) for q, p in pairs)
    return total / student.numel()


CASES = [
    (OneHot(), one_hot, (draw(5, 4),)),
    (ClassBalance(), balance, (draw(5, 4),)),
    (Activation(), activation, (draw(5, 3, 2, 2),)),
    (LogitL1(), l1, (draw(5, 4), draw(5, 4, seed=1))),
    (ElementKL(3.0), element_kl, (draw(5, 4), draw(5, 4, seed=1))),
]


@pytest.mark.parametrize(("loss", "oracle", "given"), CASES, ids=[type(case[0]).__name__ for case in CASES])
def test_equals_plain_sums_with_their_gradient_and_in_half_precision(loss, oracle, given):
    expected = oracle(*given)
    assert loss.double()(*given).item() == pytest.approx(expected, rel=1e-9)
    free = [x.clone().requires_grad_() for x in given]
    assert torch.autograd.gradcheck(loss, free)
    half = [x.bfloat16().requires_grad_() for x in given]
    found = loss.float()(*half)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=2e-2)
    found.backward()
    assert all(x.grad is not None and x.grad.dtype == torch.bfloat16 and bool(x.grad.isfinite().all()) for x in half)


def test_the_least_of_the_balance_is_that_of_equally_frequent_classes():
    """Base 10: five times it is 2.17 times the entropy in nats, as the authors' code has it."""
    assert ClassBalance()(torch.eye(10) * 1e4).item() == pytest.approx(-1.0)
    assert ClassBalance(math.e)(torch.eye(10) * 1e4).item() == pytest.approx(-math.log(10))
    assert ClassBalance()(torch.tensor([[1e4, 0.0], [1e4, 0.0]])).item() == pytest.approx(0.0)
    with pytest.raises(TutelageError, match=r"ClassBalance.base must be above 1; found 1"):
        ClassBalance(1)


def test_the_divergence_is_that_of_torch_with_its_default_reduction():
    student, teacher = draw(6, 10), draw(6, 10, seed=1)
    theirs = nn.KLDivLoss(reduction="none")(student.log_softmax(1), teacher.softmax(1)).mean()
    assert ElementKL().double()(student, teacher).item() == pytest.approx(theirs.item())
    assert ElementKL().double()(student, student).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("loss", [OneHot(), ClassBalance()])
def test_logits_of_pixels_are_refused(loss):
    with pytest.raises(TutelageError, match=r"expected non-empty logits \[B, C\]"):
        loss(torch.zeros(2, 3, 4, 4))
