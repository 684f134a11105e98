import math

import pytest
import torch

from tutelage.losses.relation.sp import SP


def test_by_hand():
    """G_s = I and G_t all ones: rows [1, 0] against [1, 1]/√2, so 2(1 − 1/√2)² + 2·½ over B² = 4."""
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert SP()(student, teacher).item() == pytest.approx(1 - 1 / math.sqrt(2), rel=1e-6)


def test_rows_have_euclidean_length():
    """Rows of G brought to sum 1 (torchdistill's p = 1) give another number here: 0.25."""
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert SP()(student, teacher).item() > 0.29


def test_mean_over_the_squared_batch():
    """Every example twice: rows of G are √2 times as long, and of 4 times as many entries each has half the square."""
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    once, twice = SP()(student, teacher), SP()(student.repeat(2, 1), teacher.repeat(2, 1))
    assert twice.item() == pytest.approx(once.item() / 2)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_float32_at_any_scale(scale: float):
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 20), torch.randn(8, 30)
    assert SP()(scale * student, teacher).item() == pytest.approx(SP()(student, teacher).item(), rel=1e-4)
