import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.unit.losses import oracles_logit as oracle

from tutelage.losses.logit.wsld import WSLD

G = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (3 * torch.randn(4, 6, generator=G, dtype=torch.float64) for _ in range(2))
LABEL = torch.tensor([0, 1, 2, 5])


@pytest.mark.parametrize("temperature", [1.0, 2.0, 20.0])
def test_the_weights_are_detached(temperature: float) -> None:
    student = STUDENT.clone().requires_grad_()
    found = torch.autograd.grad(WSLD(temperature)(student, TEACHER, LABEL), student)[0]
    ratio = F.cross_entropy(STUDENT, LABEL, reduction="none") / F.cross_entropy(TEACHER, LABEL, reduction="none")
    p, q = (torch.softmax(z / temperature, 1) for z in (STUDENT, TEACHER))
    expected = (1 - (-ratio).exp())[:, None] * (p - q) * temperature / 4
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_a_row_that_the_student_fits_and_the_teacher_does_not_is_left_alone() -> None:
    student = torch.tensor([[60.0, 0.0, 0.0]]).requires_grad_()
    loss = WSLD()(student, torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([0]))
    loss.backward()
    assert loss.detach().item() == pytest.approx(0.0, abs=1e-6)
    assert student.grad.abs().max() < 1e-6


def test_a_row_that_only_the_teacher_fits_counts_whole() -> None:
    student, teacher = torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([[60.0, 0.0, 0.0]])
    soft = F.cross_entropy(student / 2, torch.softmax(teacher / 2, 1))
    assert WSLD(2.0)(student, teacher, torch.tensor([0])).item() == pytest.approx(4 * soft.item(), rel=1e-6)


def test_two_sure_networks_are_compared_in_float32() -> None:
    # both cross-entropies round to 1e-7 or 0 where p_y is computed first
    student, teacher = torch.tensor([[16.0, 0.0]]), torch.tensor([[15.0, 0.0]])
    exact = oracle.wsld(student.double().numpy(), teacher.double().numpy(), np.array([0]), 2.0)
    assert WSLD()(student, teacher, torch.tensor([0])).item() == pytest.approx(exact, rel=1e-3)
