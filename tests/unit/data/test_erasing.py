"""Random erasing against timm's."""

import random

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from timm.data.random_erasing import RandomErasing as Theirs

from tutelage import seeding
from tutelage.data.augment import Augment
from tutelage.data.chance import own_generators
from tutelage.data.erasing import RandomErasing
from tutelage.errors import TutelageError

KEYS = torch.arange(400)
IMAGES = torch.rand(400, 3, 24, 30, generator=torch.Generator().manual_seed(0))
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def made(seed=1, view=0, **given):
    return Augment([RandomErasing(mean=MEAN, std=STD, **given)], seed)(IMAGES, KEYS, view)


def areas(images, originals):
    return (images != originals).any(1).flatten(1).sum(1).numpy()


@pytest.mark.parametrize("given", [{}, {"count": [1, 3], "area": (0.05, 0.6)}, {"probability": 1.0, "aspect": 0.1}])
def test_erased_areas_have_timms_distribution(given):
    count = given.get("count", [1, 1])
    low, high = given.get("area", (0.02, 1 / 3))
    theirs = Theirs(
        given.get("probability", 0.5), low, high, given.get("aspect", 0.3), min_count=count[0], max_count=count[1],
        mode="pixel", device="cpu",
    )  # fmt: skip
    with own_generators():
        random.seed(1)
        expected = areas(theirs(IMAGES.clone()), IMAGES)
    own = areas(made(mode="pixel", **given), IMAGES)
    assert ks_2samp(own, expected).pvalue > 1e-3
    assert 0 < (own == 0).sum() < 260 or given.get("probability") == 1


def test_boxes_are_within_and_of_the_size_that_was_asked_for():
    step = RandomErasing(probability=1.0, area=(0.1, 0.2), aspect=0.5)
    found = [step.boxes(24, 30, row) for row in seeding.uniform(1, KEYS, step.draws).tolist()]
    top, left, height, width = np.array([box for boxes in found for box in boxes]).T
    assert len(top) == 400
    assert ((top + height <= 24) & (left + width <= 30) & (top >= 0) & (left >= 0)).all()
    assert ((height * width > 0.08 * 720) & (height * width < 0.22 * 720)).all()
    assert ((height / width > 0.4) & (height / width < 2.5)).all()
    assert RandomErasing(probability=1.0, area=(1, 1), aspect=1.0).boxes(5, 5, [0.0] * 43) == []


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_what_is_filled_in_is_standard_normal_after_normalisation(mode):
    erased = (found := made(mode=mode, probability=1.0)) != IMAGES
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    normal = ((found - mean) / std)[:, 0][erased[:, 0]]
    if mode == "const":
        assert normal.abs().max() < 1e-6
        return
    assert abs(normal.mean()) < 0.25
    assert abs(normal.std() - 1) < 0.2
    own = [found[row, 0][erased[row, 0]].unique().numel() for row in range(5)]
    assert all(count == 1 for count in own) if mode == "rand" else min(own) > 5


def test_a_picture_depends_on_seed_view_and_key_alone():
    whole, step = made(mode="pixel"), Augment([RandomErasing(mode="pixel", mean=MEAN, std=STD)], 1)
    assert torch.equal(step(IMAGES[[7, 3]], KEYS[[7, 3]], 0), whole[[7, 3]])
    assert not torch.equal(made(mode="pixel", view=1), whole)
    assert not torch.equal(made(mode="pixel", seed=2), whole)
    assert 0.4 < (whole != IMAGES).flatten(1).any(1).float().mean() < 0.6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"probability": 2}, r"probability must be in \[0, 1\]"),
        ({"mode": "noise"}, "const, rand, pixel; found 'noise'"),
        ({"area": (0.5, 0.1)}, "ascending"),
        ({"aspect": 0}, r"aspect must be in \(0, 1\]; found 0"),
        ({"count": [2, 1]}, r"found \[2, 1\]"),
    ],
)
def test_bad_arguments(given, message):
    with pytest.raises(TutelageError, match=message):
        RandomErasing(**given)


def test_a_mean_of_other_channels_is_refused():
    with pytest.raises(TutelageError, match=r"need 1 numbers.*\$\{data.mean\}"):
        RandomErasing(probability=1.0)(IMAGES[:, :1], torch.rand(400, 43))
