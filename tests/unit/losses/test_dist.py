import math

import pytest
import torch

from tutelage.losses.dist import DIST


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


def test_classes_of_one_row_correlate_with_nothing() -> None:
    student, teacher = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[1.0, 3.0, 4.0]])
    both, rows = DIST()(student, teacher), DIST(gamma=0.0)(student, teacher)
    assert both.item() - rows.item() == pytest.approx(1.0)
    assert not math.isnan(both.item())


@pytest.mark.parametrize(("spread", "found"), [(1e-5, 0.0), (1e-8, 1.0)])
def test_constant_means_a_spread_of_a_millionth(spread: float, found: float) -> None:
    logits = spread * torch.tensor([[0.0, 1.0, 3.0], [2.0, 0.0, 1.0]], dtype=torch.float64)
    assert DIST(gamma=0.0)(logits, logits).item() == pytest.approx(found, abs=1e-6)
