"""Distribution matching: its loss against NumPy, zero at equal means, and going on after a kill."""

import numpy as np
import pytest
import torch

from tutelage.condense.dm import DistributionMatching, mismatch
from tutelage.condense.images import TrainingSet
from tutelage.condense.matching import drawn
from tutelage.data.differentiable import Differentiable
from tutelage.errors import TutelageError


@pytest.fixture
def train():
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    return TrainingSet(labels[:, None, None, None] + torch.randn(90, 2, 8, 8, generator=chance), labels, 3)


def method(**options):
    return DistributionMatching(**{"per_class": 2, "steps": 7, "batch": 8, "width": 4, "depth": 2, "lr": 0.1} | options)


def random_network(channels, width, depth, *chance):
    """An untrained network without its classifier, for images of two to a power."""
    side = 8 if depth == 2 else 4
    whole = drawn(TrainingSet(torch.zeros(0, channels, side, side), torch.zeros(0), 3), width, depth, 1, *chance)
    return torch.nn.Sequential(*list(whole.children())[:-1]).requires_grad_(False)


def embedded(net, image):
    """One image by the formula, in NumPy."""
    x = image.numpy().astype(np.float64)
    for conv in (layer for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)):
        weight, bias = conv.weight.numpy().astype(np.float64), conv.bias.numpy().astype(np.float64)
        padded, (height, width) = np.pad(x, ((0, 0), (1, 1), (1, 1))), x.shape[1:]
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        x = np.einsum("chwij,ocij->ohw", windows, weight) + bias[:, None, None]
        x = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
        x = np.maximum(x, 0).reshape(len(x), height // 2, 2, width // 2, 2).mean((2, 4))
    return x.ravel()


def test_the_loss_is_that_of_its_formula(train):
    net = random_network(2, 4, 2, 5)
    real, made = train.images[:7], train.images[20:25]
    expected = 0.0
    for own, other in (((0, 3), (0, 1)), ((3, 7), (1, 5))):
        means = [
            np.mean([embedded(net, image) for image in x[slice(*at)]], 0) for x, at in ((real, own), (made, other))
        ]
        expected += ((means[0] - means[1]) ** 2).sum()
    assert mismatch(net, real, [3, 4], made, [1, 4]).item() == pytest.approx(expected, rel=1e-4)
    assert mismatch(net, real, [3, 4], real, [3, 4]).item() < 1e-9


def test_the_gradient_is_that_of_finite_differences(train):
    net, made = random_network(2, 3, 1, 1).double(), train.images[:2, :, :4, :4].double().requires_grad_()
    real = train.images[10:14, :, :4, :4].double()
    assert torch.autograd.gradcheck(lambda x: mismatch(net, real, [2, 2], x, [1, 1]), made)


def test_each_step_has_another_network_and_all_are_a_function_of_their_names():
    one, same, other = (random_network(1, 4, 2, 0, step) for step in (3, 3, 4))
    first, again, another = (next(net.parameters()) for net in (one, same, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, another)


def test_learned_images_match_better_for_networks_that_they_have_not_met(train, tmp_path):
    dm = method(steps=100, batch=30, lr=1.0)
    first, found = dm.start(train, 0), dm.condense(train, 0, tmp_path)
    rows = train.balanced(30, 0)
    fresh = [random_network(2, 4, 2, "fresh", i) for i in range(10)]
    before, after = (
        sum(mismatch(net, train.images[rows], [30] * 3, x.images, [2] * 3).item() for net in fresh)
        for x in (first, found)
    )
    assert after < 0.7 * before
    assert torch.equal(found.targets, first.targets)
    assert np.isnan(dm.accuracy(found, train))


@pytest.mark.parametrize("augment", [None, Differentiable()])
def test_a_condensation_that_was_stopped_ends_in_the_same_bits(train, tmp_path, augment):
    whole = method(save_every=3, augment=augment).condense(train, 1, tmp_path / "whole")
    method(steps=3, save_every=3, augment=augment).condense(train, 1, tmp_path / "stopped")
    again = method(save_every=3, augment=augment).condense(train, 1, tmp_path / "stopped")
    assert torch.equal(whole.images, again.images)


def test_augmented_matching_learns_other_images_than_plain_matching(train, tmp_path):
    plain, augmented = (
        method(augment=augment).condense(train, 1, tmp_path / str(i)).images
        for i, augment in enumerate((None, Differentiable(["crop"])))
    )
    assert not torch.equal(plain, augmented)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"depth": 4}, r"condense\.depth=4: images of \[8, 8\] can't be halved as often"),
        ({"batch": 0}, r"condense\.batch must be a whole number of at least 1; found 0"),
        ({"momentum": 1}, r"condense\.momentum in \[0, 1\); found 0\.1 and 1"),
        ({"augment": "crop"}, r"condense\.augment: str is not a tutelage\.data\.augment\.Step"),
        ({"per_class": 31}, r"condense\.per_class=31: class 0 has 30 labelled images"),
    ],
)
def test_what_does_not_fit_is_one_sentence(train, options, said):
    with pytest.raises(TutelageError, match=said):
        method(**options).start(train, 0)
