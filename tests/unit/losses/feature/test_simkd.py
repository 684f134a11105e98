import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.losses.feature.simkd import SimKD


@pytest.mark.parametrize("size", [(5, 5), (3, 3), (10, 10)], ids=["equal", "smaller", "larger"])
def test_it_is_the_mean_square_at_the_smaller_size(size: tuple[int, int]) -> None:
    x, t = torch.randn(4, 6, 5, 5, dtype=torch.float64), torch.randn(4, 6, *size, dtype=torch.float64)
    side = min(5, size[0])
    both = [torch.nn.functional.adaptive_avg_pool2d(m, side) for m in (x, t)]
    torch.testing.assert_close(SimKD()(x, t), (both[0] - both[1]).square().sum() / both[0].numel())


def test_equal_features_cost_nothing() -> None:
    x = torch.randn(4, 3, 5, 5)
    assert SimKD()(x, x).item() == 0
    torch.testing.assert_close(SimKD()(x, x + 2), torch.tensor(4.0))


def test_the_gradient() -> None:
    x, t = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, 2, 2).double()
    assert torch.autograd.gradcheck(lambda x: SimKD()(x, t), (x,))


def test_half_precision_is_computed_in_float32() -> None:
    x, t = torch.randn(4, 8).bfloat16(), torch.randn(4, 8).bfloat16()
    found = SimKD()(x, t)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, SimKD()(x.float(), t.float()))


def test_other_widths_are_refused() -> None:
    with pytest.raises(TutelageError, match=r"SimKD.*\[4, 3, 5, 5\].*\[4, 6, 5, 5\]"):
        SimKD()(torch.randn(4, 3, 5, 5), torch.randn(4, 6, 5, 5))
    with pytest.raises(TutelageError, match=r"found student \[4, 3\], teacher \[4, 3, 5, 5\]"):
        SimKD()(torch.randn(4, 3), torch.randn(4, 3, 5, 5))
