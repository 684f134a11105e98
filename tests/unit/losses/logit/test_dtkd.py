import pytest
import torch

from tutelage.losses.logit.dtkd import DTKD
from tutelage.losses.logit.soft_target import SoftTarget


def test_fixed_temperatures() -> None:
    student, teacher = torch.tensor([[3.0, 0.0], [1.0, 0.5]]), torch.tensor([[1.0, -2.0], [7.0, 0.0]])
    of_student, of_teacher = DTKD(temperature=4.0).temperatures(student, teacher)
    torch.testing.assert_close(of_student, torch.tensor([[6.0], [1.0]]))
    torch.testing.assert_close(of_teacher, torch.tensor([[2.0], [7.0]]))


@pytest.mark.parametrize("highest", [-5.0, -1.0, 0.0])
def test_temperatures_stay_positive_where_the_formula_alone_would_not(highest: float) -> None:
    student, teacher = torch.tensor([[highest, -6.0, -9.0]]), torch.tensor([[1.0, 0.0, -1.0]])
    # unguarded, T_s = 8 · highest / (highest + 1) and T_t = 8 / (highest + 1): 10 and −2, −∞ and ∞, 0 and 8
    for pair in ((student, teacher), (teacher, student), (student, student)):
        of_student, of_teacher = DTKD().temperatures(*pair)
        assert of_student.item() > 0
        assert of_teacher.item() > 0
        assert (of_student + of_teacher).item() == pytest.approx(8.0)
        free = [z.clone().requires_grad_() for z in pair]
        loss = DTKD()(*free)
        loss.backward()
        assert loss.item() >= 0
        assert all(z.grad.isfinite().all() and z.grad.abs().max() < 100 for z in free)
    assert DTKD().temperatures(student, student)[0].item() == pytest.approx(4.0)


def test_equal_heights_are_the_soft_target() -> None:
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 5, generator=g) for _ in range(2))
    student[:, 0] = teacher[:, 3] = 5.0
    expected = 3 * SoftTarget()(student, teacher).item()
    assert DTKD(alpha=3.0, beta=0.0)(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    assert DTKD(alpha=0.0, beta=3.0)(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_flows_through_the_temperatures() -> None:
    student, teacher = torch.tensor([[3.0, 0.0, 1.0]]).requires_grad_(), torch.tensor([[1.0, -2.0, 0.5]])
    through = torch.autograd.grad(DTKD(beta=0.0)(student, teacher), student)[0]
    assert through.sum().abs().item() > 1e-3  # at temperatures held fixed it would sum to 0
