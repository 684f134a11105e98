import math

import pytest
import torch

from tutelage.losses.logit.dkd import DKD
from tutelage.losses.logit.rld import RLD

LABEL = torch.tensor([1])


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_fixed_numbers_of_a_mistaken_teacher() -> None:
    # the teacher prefers class 0 to the label 1: b_t = (1/2, 1/2), b_s = (1/4, 3/4); the classes 2 and 3 are left
    student, teacher = logs(1 / 4, 1 / 4, 1 / 3, 1 / 6), logs(1 / 2, 1 / 4, 1 / 8, 1 / 8)
    confidence, correlation = RLD(temperature=1.0).parts(student, teacher, LABEL)
    assert confidence.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-9)
    assert correlation.item() == pytest.approx(0.5 * math.log(3 / 4) + 0.5 * math.log(3 / 2), rel=1e-9)
    assert RLD(2.0, 3.0, 1.0)(student, teacher, LABEL).item() == pytest.approx(2 * confidence + 3 * correlation)


def test_where_the_teacher_is_right_it_is_decoupled_distillation() -> None:
    student, teacher = logs(0.2, 0.5, 0.3), logs(0.1, 0.6, 0.3)
    ours = RLD(1.0, 8.0, 1.0)(student, teacher, LABEL)
    assert ours.item() == pytest.approx(DKD(1.0, 8.0, 1.0)(student, teacher, LABEL).item(), rel=1e-9)


def test_what_the_teacher_prefers_to_the_label_has_no_gradient_in_the_second_part() -> None:
    student = logs(0.3, 0.2, 0.3, 0.2).requires_grad_()
    _, correlation = RLD().parts(student, logs(0.5, 0.25, 0.05, 0.2), LABEL)
    (gradient,) = torch.autograd.grad(correlation, student)
    assert not gradient[0, :2].any()
    assert gradient[0, 2:].all()


def test_a_row_without_a_class_below_its_label_adds_nothing() -> None:
    student = logs(0.3, 0.3, 0.4).requires_grad_()
    _, correlation = RLD().parts(student, logs(0.5, 0.1, 0.4), LABEL)
    assert correlation.item() == 0
    assert not torch.autograd.grad(correlation, student)[0].any()
