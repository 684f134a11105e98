import pytest
import torch
from tests.unit.losses import oracles_feature as oracle
from torch import nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import Lazy, connector, match_size, pointwise, pool_to, stage_pairs


@pytest.mark.parametrize("size", [(6, 9), (3, 3), (2, 9), (4, 3), (5, 7), (1, 1)])
def test_pooling_is_adaptive_whether_sizes_divide_or_not(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 6, 9, dtype=torch.float64)
    expected = torch.from_numpy(oracle.pool(x.numpy(), size))
    torch.testing.assert_close(pool_to(x, size), expected, rtol=1e-12, atol=1e-12)


def test_both_maps_shrink_where_each_is_the_larger() -> None:
    first, second = match_size(torch.randn(2, 3, 8, 4), torch.randn(2, 5, 6, 7))
    assert first.shape == (2, 3, 6, 4)
    assert second.shape == (2, 5, 6, 4)


def test_equal_sizes_and_other_kinds_are_left_alone() -> None:
    for shape in [(2, 3, 4, 4), (2, 5, 3), (2, 3)]:
        x, y = torch.randn(shape), torch.randn(shape)
        first, second = match_size(x, y)
        assert first is x
        assert second is y


def test_a_pointwise_map_acts_on_the_channels_of_each_kind() -> None:
    assert pointwise(4, 3, 5)(torch.randn(2, 3, 4, 4)).shape == (2, 5, 4, 4)
    assert pointwise(3, 3, 5)(torch.randn(2, 7, 3)).shape == (2, 7, 5)
    assert pointwise(2, 3, 5)(torch.randn(2, 3)).shape == (2, 5)


@pytest.mark.parametrize("size", [(), (4, 4)], ids=["vectors", "maps"])
def test_a_connector_comes_out_normalised(size: tuple[int, ...]) -> None:
    student = torch.randn(64, 3, *size)
    out = connector(student, torch.randn(64, 5, *size))(student)
    axes = [0, *range(2, 2 + len(size))]
    torch.testing.assert_close(out.mean(axes), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.var(axes, unbiased=False), torch.ones(5), rtol=0, atol=1e-3)


def test_tokens_of_other_lengths_are_refused() -> None:
    with pytest.raises(
        TutelageError, match=r"Mine: .* number of tokens; found student \[2, 7, 3\], teacher \[2, 6, 3\]"
    ):
        stage_pairs(torch.randn(2, 7, 3), torch.randn(2, 6, 3), "Mine", (2, 3, 4))


def test_no_stage_at_all_is_refused() -> None:
    with pytest.raises(
        TutelageError, match=r"Mine needs the same number of stages of both; found student \[\], teacher \[\]"
    ):
        stage_pairs([], [], "Mine", (4,))


def test_parts_are_built_once_and_follow_the_first_tensor() -> None:
    class Twice(Lazy):
        def build(self, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
            self.part = nn.Linear(len(pairs), 1)

    loss = Twice().eval()
    pair = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3)
    loss.build_once([pair, pair])
    part = loss.part
    loss.build_once([pair])
    assert loss.part is part
    assert part.weight.dtype == torch.float64
    assert not part.training
