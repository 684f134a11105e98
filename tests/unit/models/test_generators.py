"""Generators of images."""

import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.generators import ImageGenerator, Noise


def test_images_have_the_shape_and_brightness_of_data():
    net = ImageGenerator([3, 12, 8], latents=5, width=6)
    images = net(net.draw(32, torch.device("cpu")))
    assert images.shape == (32, 3, 12, 8)
    assert images.mean((0, 2, 3)).abs().max() < 1e-4
    assert images.std((0, 2, 3)).sub(1).abs().max() < 0.05
    assert [module.eps for module in net.modules() if isinstance(module, nn.BatchNorm2d)] == [1e-5, 0.8, 0.8, 1e-5]
    assert sum(p.numel() for p in net.norm.parameters()) == 0
    assert sum(p.numel() for p in ImageGenerator([3, 12, 8], last="affine").norm.parameters()) == 6


def test_the_published_generator_has_the_published_weights():
    """Of MNIST as 32×32: 100 → 128·8·8, 128 → 128 → 64 → 1, by hand from the layers of DAFL's code."""
    linear, norms = 101 * 128 * 64, 2 * (128 + 128 + 64)
    convolutions = (9 * 128 + 1) * 128 + (9 * 128 + 1) * 64 + 9 * 64 + 1
    assert sum(p.numel() for p in ImageGenerator([1, 32, 32]).parameters()) == linear + norms + convolutions


def test_a_sigmoid_is_normalised_as_data_are():
    net = ImageGenerator([1, 8, 8], width=4, last="sigmoid", mean=[0.5], std=[0.25])
    images = net(net.draw(4, torch.device("cpu")))
    assert images.min() >= -2
    assert images.max() <= 2


def test_noise_is_standard_and_learns_nothing():
    net = Noise([2, 16, 16])
    images = net(net.draw(50, torch.device("cpu")))
    assert images.shape == (50, 2, 16, 16)
    assert images.std().item() == pytest.approx(1, abs=0.02)
    assert not list(net.parameters())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"input_shape": [1, 10, 8]}, "multiples of 4"),
        ({"input_shape": [1, 8, 8], "width": 1}, "width at least 2"),
        ({"input_shape": [64]}, r"input_shape must be \[channels, height, width\]"),
        ({"input_shape": [1, 8, 8], "last": "relu"}, "tanh, affine or sigmoid; found 'relu'"),
        ({"input_shape": [1, 8, 8], "latents": 0}, "latents must be positive"),
    ],
)
def test_bad_arguments_are_refused(arguments, said):
    with pytest.raises(TutelageError, match=said):
        ImageGenerator(**arguments)
