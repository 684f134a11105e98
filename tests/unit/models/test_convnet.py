import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.models.convnet import ConvNet


@pytest.mark.parametrize(("padding", "places"), [(1, 3 * 3), (3, 4 * 4)])
def test_its_size_is_the_published_one(padding, places):
    net = ConvNet([1, 28, 28], 10, padding=padding)
    by_hand = 9 * 128 + 2 * 128 * 128 * 9 + 3 * 128 + 3 * 2 * 128 + 10 * 128 * places + 10
    assert sum(one.numel() for one in net.parameters()) == by_hand
    assert net(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_each_channel_of_an_image_is_normalised_by_itself():
    net = ConvNet([2, 8, 8], 3, width=4, depth=2)
    seen = net.stage1.preact(torch.randn(2, 2, 8, 8))
    torch.testing.assert_close(seen.mean((2, 3)), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.var((2, 3), unbiased=False), torch.ones(2, 4), atol=1e-3, rtol=0)


def test_what_does_not_fit_is_one_sentence():
    with pytest.raises(TutelageError, match="sides of at least 16"):
        ConvNet([1, 8, 8], 3, depth=4)
    with pytest.raises(TutelageError, match="width must be positive; found 0"):
        ConvNet([1, 8, 8], 3, width=0)
    assert ConvNet([1, 12, 12], 3, width=2, depth=4, padding=3)(torch.randn(1, 1, 12, 12)).shape == (1, 3)
