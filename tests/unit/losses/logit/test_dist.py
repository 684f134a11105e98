import math

import numpy as np
import pytest
import torch
from tests.unit.losses import oracles_logit as oracle
from torch import Tensor

from tutelage.losses.logit.dist import DIST


def test_fixed_numbers() -> None:
    # rows (1, 2, 3)/6 and (3, 2, 1)/6 against (1, 2, 3)/6 twice: r = 1 and −1; the teacher's classes are constant
    student, teacher = (torch.tensor(rows).log() for rows in (((1.0, 2, 3), (3.0, 2, 1)), ((1.0, 2, 3), (1.0, 2, 3))))
    assert DIST(beta=1.0, gamma=0.0)(student, teacher).item() == pytest.approx(1.0, abs=1e-6)
    assert DIST(beta=0.0, gamma=1.0)(student, teacher).item() == pytest.approx(1.0, abs=1e-6)
    assert DIST(beta=0.0, gamma=1.0)(student, student).item() == pytest.approx(1 / 3, abs=1e-6)  # class 2 is constant


def test_constant_probabilities_send_no_gradient() -> None:
    student, teacher = torch.zeros(4, 5, requires_grad=True), torch.randn(4, 5)
    loss = DIST()(student, teacher)
    loss.backward()
    assert loss.item() == 2.0
    assert not student.grad.any()


def test_rare_classes_count_as_much_as_others() -> None:
    # probabilities of 1e-6 and less: 1e-8 added to the product of norms would hide their agreement
    logits = torch.tensor([[0.0, 1.0, -14.0, -15.0], [1.0, 0.0, -16.0, -14.0], [0.0, 0.0, -15.0, -17.0]])
    assert DIST(beta=0.0)(logits, logits).item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_saturated_softmax(scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    student, teacher = (scale * torch.randn(64, 100, generator=g) for _ in range(2))
    free = [student.clone().requires_grad_(), student.double().requires_grad_()]
    losses = [DIST()(free[0], teacher), DIST().double()(free[1], teacher.double())]
    expected = sum(1 - correlation(student, teacher, dim) for dim in (0, 1))
    assert [loss.item() for loss in losses] == pytest.approx([expected, expected], rel=1e-5)
    single, double = (torch.autograd.grad(loss, z)[0] for loss, z in zip(losses, free, strict=True))
    assert (single - double).norm() < 1e-3 * double.norm()


def correlation(student: Tensor, teacher: Tensor, dim: int) -> float:
    """The mean over the other dimension, by logarithms of which no exponential underflows."""
    total = []
    for s, t in zip(*(z.double().log_softmax(1).movedim(dim, 1).numpy() for z in (student, teacher)), strict=True):
        total.append(oracle.pearson(np.exp(s - s.max()), np.exp(t - t.max())))
    return oracle.mean(total)


def test_a_class_of_no_float32_probability_counts_as_much_as_others() -> None:
    logits = torch.tensor([[0.0, 1.0, -140.0], [1.0, 0.0, -160.0], [0.0, 0.0, -150.0]])
    logits = logits.requires_grad_()
    loss = DIST(beta=0.0)(logits, logits.detach())
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    against = logits.detach()[[1, 0, 2]]
    assert torch.autograd.grad(DIST(beta=0.0)(logits, against), logits)[0][:, 2].any()


def test_classes_of_one_row_correlate_with_nothing() -> None:
    student, teacher = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[1.0, 3.0, 4.0]])
    both, rows = DIST()(student, teacher), DIST(gamma=0.0)(student, teacher)
    assert both.item() - rows.item() == pytest.approx(1.0)
    assert not math.isnan(both.item())


@pytest.mark.parametrize(("spread", "found"), [(1e-5, 0.0), (1e-8, 1.0)])
def test_constant_means_a_spread_of_a_millionth(spread: float, found: float) -> None:
    logits = spread * torch.tensor([[0.0, 1.0, 3.0], [2.0, 0.0, 1.0]], dtype=torch.float64)
    assert DIST(gamma=0.0)(logits, logits).item() == pytest.approx(found, abs=1e-6)
