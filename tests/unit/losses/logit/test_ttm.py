import math

import pytest
import torch

from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.losses.logit.ttm import TTM, WTTM

G = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (3 * torch.randn(4, 6, generator=G, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("make", [TTM, WTTM])
def test_least_where_the_students_logits_are_the_teachers_over_t(make: type[TTM]) -> None:
    student = (TEACHER / 4 + 1).requires_grad_()
    loss = make(4.0)(student, TEACHER)
    assert loss.detach().item() == pytest.approx(0.0, abs=1e-14)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-14


def test_at_temperature_1_both_are_the_soft_target() -> None:
    expected = SoftTarget(1.0)(STUDENT, TEACHER).item()
    assert TTM(1.0)(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-12)
    assert WTTM(1.0)(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-12)


def test_the_student_is_not_softened_and_t_squared_is_left_out() -> None:
    student = STUDENT.clone().requires_grad_()
    found = torch.autograd.grad(TTM(4.0)(student, TEACHER), student)[0]
    torch.testing.assert_close(found, (torch.softmax(STUDENT, 1) - torch.softmax(TEACHER / 4, 1)) / 4)


def test_an_unsure_teacher_weighs_more() -> None:
    sure, unsure = torch.tensor([[1e4, 0.0, 0.0, 0.0]]), torch.zeros(1, 4)
    assert WTTM(4.0).weight(sure).item() == pytest.approx(1.0)
    assert WTTM(4.0).weight(unsure).item() == pytest.approx(4 ** (3 / 4))
    weights = WTTM(4.0).weight(torch.cat([sure, unsure]))
    student = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    each = [TTM(4.0)(student[i : i + 1], teacher).item() for i, teacher in enumerate((sure, unsure))]
    expected = sum(w * x for w, x in zip(weights.tolist(), each, strict=True)) / 2
    assert WTTM(4.0)(student, torch.cat([sure, unsure])).item() == pytest.approx(expected, rel=1e-6)
    assert math.isfinite(expected)
