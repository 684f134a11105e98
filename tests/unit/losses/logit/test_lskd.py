import math

import pytest
import torch

from tutelage.losses.logit.dkd import DKD
from tutelage.losses.logit.lskd import LSKD, Standardised, standardised
from tutelage.losses.logit.soft_target import SoftTarget

G = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (3 * torch.randn(4, 6, generator=G, dtype=torch.float64) for _ in range(2))
LABEL = torch.tensor([0, 1, 2, 5])


def test_fixed_numbers() -> None:
    found = standardised(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 6.0]]))
    expected = torch.tensor([[-1.0, 0.0, 1.0], [-1 / math.sqrt(3), -1 / math.sqrt(3), 2 / math.sqrt(3)]])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_scale_and_offset_of_each_row_mean_nothing() -> None:
    scale = torch.tensor([[0.5], [1.0], [2.0], [30.0]])
    loss = LSKD().double()
    expected = loss(STUDENT, TEACHER).item()
    assert loss(scale * STUDENT + 4, TEACHER).item() == pytest.approx(expected, rel=1e-5)
    assert loss(STUDENT, scale * TEACHER - 4).item() == pytest.approx(expected, rel=1e-5)
    assert loss(scale * TEACHER, TEACHER).item() == pytest.approx(0.0, abs=1e-10)


def test_any_loss_of_logits_can_be_standardised() -> None:
    assert torch.equal(Standardised(SoftTarget(2.0))(STUDENT, TEACHER), LSKD()(STUDENT, TEACHER))
    found = Standardised(DKD())(STUDENT, TEACHER, label=LABEL)
    assert torch.equal(found, DKD()(standardised(STUDENT), standardised(TEACHER), LABEL))


def test_equal_logits_send_no_gradient() -> None:
    student = torch.zeros(4, 6, dtype=torch.float64, requires_grad=True)
    LSKD()(student, TEACHER).backward()
    assert not student.grad.any()


def test_one_class_left_by_the_mask() -> None:
    row = torch.tensor([[-math.inf, 3.0, -math.inf]])
    assert torch.equal(standardised(row), torch.tensor([[-math.inf, 0.0, -math.inf]]))
