import math

import numpy as np
import pytest
import torch
from tests.unit.losses import oracles_logit as oracle
from torch import Tensor

from tutelage.losses.logit.dkd import DKD
from tutelage.losses.logit.soft_target import SoftTarget

LABEL = torch.tensor([0])


def logs(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_fixed_numbers() -> None:
    # q = (1/2, 1/4, 1/4), p = (1/4, 1/2, 1/4): b_t = (1/2, 1/2), b_s = (1/4, 3/4); q̂ = (1/2, 1/2), p̂ = (2/3, 1/3)
    of_label, of_others = DKD(temperature=1.0).parts(logs(0.25, 0.5, 0.25), logs(0.5, 0.25, 0.25), LABEL)
    assert of_label.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-12)
    assert of_others.item() == pytest.approx(0.5 * math.log(3 / 4) + 0.5 * math.log(3 / 2), rel=1e-12)


def test_weights_are_of_the_parts() -> None:
    student, teacher = logs(0.2, 0.5, 0.3), logs(0.6, 0.1, 0.3)
    of_label, of_others = DKD().parts(student, teacher, LABEL)
    for alpha, beta in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (2.0, 6.0)):
        loss = DKD(alpha, beta)(student, teacher, LABEL)
        assert loss.item() == pytest.approx((alpha * of_label + beta * of_others).item(), rel=1e-6)


def test_the_soft_target_comes_apart_into_the_two_parts() -> None:
    g = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(1, 6, generator=g, dtype=torch.float64) for _ in range(2))
    of_label, of_others = DKD().parts(student, teacher, LABEL)
    rest = 1 - torch.softmax(teacher / 4, 1)[0, 0]
    assert SoftTarget()(student, teacher).item() == pytest.approx((of_label + rest * of_others).item(), rel=1e-10)


def test_the_label_is_cut_out_however_high_its_logit_is() -> None:
    # minus 1000 after the division by T would leave it in
    student, teacher = torch.tensor([[9000.0, 1.0, 2.0]]), torch.tensor([[8000.0, 3.0, 1.0]])
    _, of_others = DKD(temperature=4.0).parts(student, teacher, LABEL)
    exact = oracle.soft_target(np.array([[1.0, 2.0]]), np.array([[3.0, 1.0]]), 4.0)
    assert of_others.item() == pytest.approx(exact, rel=1e-4)


def test_a_sure_student_costs_a_finite_amount() -> None:
    # p_y rounds to 1 in float32: log(1 − p_y) by subtraction would be −inf
    student, teacher = torch.tensor([[40.0, 0.0]]).requires_grad_(), torch.zeros(1, 2)
    loss = DKD(temperature=1.0)(student, teacher, LABEL)
    loss.backward()
    assert loss.item() == pytest.approx(20 - math.log(2), rel=1e-6)
    torch.testing.assert_close(student.grad, torch.tensor([[0.5, -0.5]]))
