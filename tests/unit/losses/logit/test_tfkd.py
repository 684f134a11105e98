import math

import pytest
import torch
import torch.nn.functional as F
from tests.unit.losses import oracles_logit as oracle

from tutelage.errors import TutelageError
from tutelage.losses.logit.tfkd import TfKDReg

STUDENT = 3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABEL = torch.tensor([0, 1, 2, 4])


def test_fixed_numbers() -> None:
    # a = 4/5 over 3 classes softened at T = 2: (0.8, 0.1, 0.1)^½ ∝ (√8, 1, 1)
    q = torch.tensor([math.sqrt(8), 1.0, 1.0]) / (math.sqrt(8) + 2)
    expected = 4 * (q * (q.log() - math.log(1 / 3))).sum().item()
    assert TfKDReg(0.8, 2.0)(torch.zeros(1, 3), torch.tensor([0])).item() == pytest.approx(expected, rel=1e-5)


def test_at_temperature_1_it_is_label_smoothing_less_its_entropy() -> None:
    smoothing = 0.1
    correct = 1 - smoothing + smoothing / 5
    other = smoothing / 5
    entropy = -(correct * math.log(correct) + 4 * other * math.log(other))
    expected = F.cross_entropy(STUDENT, LABEL, label_smoothing=smoothing).item() - entropy
    assert TfKDReg(correct, 1.0)(STUDENT, LABEL).item() == pytest.approx(expected, rel=1e-6)


def test_a_teacher_without_doubt_is_the_label() -> None:
    expected = F.cross_entropy(STUDENT, LABEL).item()
    assert TfKDReg(1.0, 1.0)(STUDENT, LABEL).item() == pytest.approx(expected, rel=1e-12)


def test_least_where_the_student_is_the_virtual_teacher() -> None:
    student = torch.full((4, 5), math.log(0.01 / 4), dtype=torch.float64)
    student = student.scatter(1, LABEL[:, None], math.log(0.99)).requires_grad_()
    loss = TfKDReg()(student, LABEL)
    assert loss.detach().item() == pytest.approx(0.0, abs=1e-10)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-6


def test_near_the_virtual_teacher_float32_keeps_its_digits() -> None:
    student = torch.full((4, 5), math.log(0.01 / 4)).scatter(1, LABEL[:, None], math.log(0.99))
    student += 1e-3 * STUDENT.float()
    expected = oracle.tfkd(student.double().numpy(), LABEL.numpy(), 0.99, 20.0)
    assert TfKDReg()(student, LABEL).item() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("correct", [0.0, 1.1, -0.5])
def test_mass_outside_0_and_1_is_refused(correct: float) -> None:
    with pytest.raises(TutelageError, match=r"TfKDReg\.correct"):
        TfKDReg(correct)


def test_one_class_is_refused() -> None:
    with pytest.raises(TutelageError, match="2 classes"):
        TfKDReg()(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))


def test_two_classes_are_enough() -> None:
    assert TfKDReg()(torch.zeros(2, 2), torch.tensor([0, 1])).isfinite()
