import math

import pytest
import torch
from torch import Tensor

from tutelage.losses.relation.pkt import PKT, divergence, neighbours


def test_by_hand():
    """Orthogonal students: rows [⅔, ⅓]; equal teachers: [½, ½]. KL = ½ log 1.125 a row, over B² = 4 entries."""
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    assert PKT()(student, teacher).item() == pytest.approx(2 * 0.5 * math.log(1.125) / 4, rel=1e-5)


def test_repdistillers_formula_gives_the_same():
    """It puts ε into the logarithm; away from opposite vectors that is within 1e-5."""
    torch.manual_seed(0)
    student, teacher = torch.randn(12, 8, dtype=torch.float64), torch.randn(12, 9, dtype=torch.float64)

    def probabilities(x: Tensor) -> Tensor:
        x = x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-7)
        near = (x @ x.T + 1) / 2
        return near / near.sum(1, keepdim=True)

    s, t = probabilities(student), probabilities(teacher)
    expected = (t * torch.log((t + 1e-7) / (s + 1e-7))).mean()
    assert PKT()(student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)


def test_rows_are_distributions():
    torch.manual_seed(0)
    rows = neighbours(torch.randn(9, 4))
    assert torch.allclose(rows.sum(1), torch.ones(9))
    assert (rows > 0).all()


@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3])
def test_float32_when_the_student_is_near(gap: float):
    """The plain sum of p·log(p/q) is then off by up to a quarter."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(64, 64, generator=generator).relu()
    student = teacher + gap * torch.randn(64, 64, generator=generator)
    exact = PKT()(student.double(), teacher.double()).item()
    assert PKT()(student, teacher).item() == pytest.approx(exact, rel=1e-4)
    if gap == 1e-3:
        t, s = neighbours(teacher), neighbours(student)
        assert (t * (t / s).log()).mean().item() != pytest.approx(exact, rel=1e-2)


def test_divergence_is_exact_near_and_far():
    target = torch.tensor([0.5, 0.5, 0.5, 1e-7, 0.9], dtype=torch.float64)
    guess = torch.tensor([0.5, 0.5 + 1e-6, 0.2, 0.9, 1e-7], dtype=torch.float64)
    expected = [
        0.0,
        1e-12 / (2 * 0.5) * (1 - 2e-6 * 2 / 3),  # t·(u²/2 − u³/3), u = 2e-6
        *(t * math.log(t / g) - t + g for t, g in [(0.5, 0.2), (1e-7, 0.9), (0.9, 1e-7)]),
    ]
    assert divergence(target, guess).tolist() == pytest.approx(expected, rel=1e-6)
    assert divergence(target.float(), guess.float()).tolist()[2:] == pytest.approx(expected[2:], rel=1e-5)


def test_divergence_has_a_finite_slope_at_the_smallest_guess():
    """1 − target/guess, also where (guess − target)/target rounds to −1."""
    guess = torch.tensor([1e-9], requires_grad=True)
    divergence(torch.tensor([0.9]), guess).backward()
    assert guess.grad.item() == pytest.approx(1 - 0.9 / 1e-9, rel=1e-5)


def test_no_probability_is_0_or_negative():
    """In float32 the cosine of opposite vectors comes out below −1 by more than ε."""
    torch.manual_seed(0)
    rows = torch.randn(256, 64)
    assert (neighbours(torch.cat([rows, -rows])) > 0).all()


def test_opposite_examples():
    """A cosine of −1 in the student where the teacher's is 1: finite, in value and gradient."""
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    value = PKT()(student, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    value.backward()
    assert value.item() == pytest.approx(2 * 0.5 * (math.log(0.5) + math.log(0.5 / 1e-7)) / 4, rel=1e-3)
    assert student.grad.isfinite().all()
