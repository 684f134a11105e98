"""RandAugment by timm's strings, and other transforms of PIL images, as functions of (seed, view, key)."""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import rand_augment_transform
from torchvision.transforms import TrivialAugmentWide

from tutelage import seeding
from tutelage.data.augment import Augment
from tutelage.data.chance import global_states, own_generators
from tutelage.data.each_image import EachImage, RandAugment
from tutelage.errors import TutelageError

KEYS = torch.arange(12)
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 3, 16, 20), np.uint8)).float() / 255


@pytest.mark.parametrize("make", [lambda: RandAugment("rand-m9-mstd0.5-inc1"), lambda: EachImage(TrivialAugmentWide())])
def test_a_picture_depends_on_seed_view_and_key_alone(make):
    both = Augment([make()], 1)
    whole = both(IMAGES, KEYS, 3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    middle = repr(global_states())
    assert torch.equal(Augment([make()], 1)(IMAGES[order], KEYS[order], 3), whole[order])
    assert repr(global_states()) == middle
    changed = (whole != IMAGES).flatten(1).any(1)
    assert changed.sum() >= 4
    for other in (both(IMAGES, KEYS, 4), both.with_seed(2)(IMAGES, KEYS, 3)):
        assert (other != whole).flatten(1).any(1).sum() >= 4


@pytest.mark.parametrize(
    "config", ["rand-m9-mstd0.5-inc1", "rand-m7-mstd0.5", "rand-m5-n3-p1.0", "rand-tweights-mmax8"]
)
def test_randaugment_does_what_timm_does(config):
    """The same string and seed, of images of bytes; 0.45 of the shorter side is the longest move."""
    step, chance = RandAugment(config, fill=(0.5, 0.25, 0.75)), seeding.uniform(1, KEYS, 2)
    made = step(IMAGES, chance)
    theirs = rand_augment_transform(config, {"translate_const": 7, "img_mean": (128, 64, 191)})  # draws no 0 bits here
    with own_generators():
        for row in range(12):
            seed = seeding.derive_seed("each image", *(int(x * 2**24) for x in chance[row].tolist()))
            random.seed(seed)
            np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
            image = Image.fromarray((IMAGES[row] * 255).round().byte().permute(1, 2, 0).numpy())
            expected = torch.from_numpy(np.array(theirs(image))).permute(2, 0, 1)
            assert torch.equal((made[row] * 255).round().byte(), expected)


def test_posterizing_to_no_bit_is_black_whatever_pillow_says():
    """At the largest magnitude ``inc1`` asks for 0 bits."""
    step = RandAugment("rand-m10-inc1-p1.0")
    [posterize] = [one for one in step.transform((16, 20)).ops if one.name == "PosterizeIncreasing"]
    image = Image.fromarray((IMAGES[0] * 255).round().byte().permute(1, 2, 0).numpy())
    assert not np.asarray(posterize(image)).any()


def test_bytes_and_grey_come_through():
    plain = EachImage(lambda image: image)
    assert torch.equal(plain(IMAGES, torch.rand(12, 2)), IMAGES)
    grey = IMAGES[:, :1]
    mirrored = EachImage(ImageOps.mirror)(grey, torch.rand(12, 2))
    assert torch.equal(mirrored, grey.flip(-1))
    assert RandAugment("rand-m9")(grey, torch.rand(12, 2)).shape == grey.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandAugment("auto-m9"), "config='auto-m9' is no string of timm's"),
        (lambda: RandAugment("rand-mx9"), "config='rand-mx9': 'mx9' is none of m9, mstd0.5"),
        (lambda: RandAugment("rand-zz"), "config='rand-zz': 'zz' is none of"),
        (lambda: RandAugment("rand-m9-inc"), "config='rand-m9-inc': 'inc' is none of"),
        (lambda: RandAugment("rand-m9-twights"), "config='rand-m9-twights': 'twights' is none of"),
        (lambda: RandAugment("rand-m9", interpolation="box"), "found 'box'"),
        (lambda: RandAugment("rand-m9", fill=(0.5, 2, 0)), r"three numbers in \[0, 1\]"),
        (lambda: EachImage("flip"), "can't be called; found 'flip'"),
        (lambda: EachImage(lambda x: x.resize((3, 3)))(IMAGES, torch.rand(12, 2)), r"made \(3, 3\) .* of \(20, 16\)"),
        (lambda: EachImage(lambda x: 1 / 0)(IMAGES, torch.rand(12, 2)), "failed: division by zero"),
        (lambda: EachImage(ImageOps.mirror)(IMAGES[:, :2], torch.rand(12, 2)), "1 or 3 channels; found 2"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(TutelageError, match=message):
        make()
