"""Mixup and CutMix as functions of (seed, view, key)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import beta

from tutelage.config import factory, validate
from tutelage.data.augment import Augment, Flip
from tutelage.data.examples import Examples, ImageSet, Normalise
from tutelage.data.mix import Mix
from tutelage.data.pixels import MemoryPixels
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

COUNT, CLASSES, SIDE = 400, 5, 8


def made(mix, seed=3, labels=None, augment=()):
    """Images of one grey level, which says which example they are."""
    levels = torch.arange(COUNT).float() / COUNT
    labels = torch.arange(COUNT) % CLASSES if labels is None else labels
    examples = Examples(MemoryPixels(levels[:, None, None, None].expand(-1, 1, SIDE, SIDE).clone()), labels)
    keys = torch.arange(COUNT)
    plain = Normalise(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    return ImageSet(examples, keys, plain, Augment(augment, seed), mix=mix.of(keys, labels, CLASSES, seed))


def batch(images, rows=None, epoch=0):
    return images[epoch, torch.arange(COUNT) if rows is None else rows]


def test_mixup_is_the_formula_with_the_partner_of_the_set():
    found = batch(images := made(Mix(mixup=0.4, cutmix=0)))
    keys = torch.arange(COUNT)
    partners = images.mix.partners(keys % CLASSES, images.mix.chance(keys, 0))
    grey = found["input"][:, 0]
    assert torch.equal(grey.amax((1, 2)), grey.amin((1, 2)))
    for row, partner in enumerate(partners.tolist()):
        x, other = np.float64(row) / COUNT, np.float64(partner) / COUNT
        if row == partner:
            continue
        share = (float(grey[row, 0, 0]) - other) / (x - other)
        soft = np.zeros(CLASSES)
        soft[row % CLASSES] += share
        soft[partner % CLASSES] += 1 - share
        np.testing.assert_allclose(found["soft_label"][row], soft, atol=2e-4)
        assert found["label"][row] == soft.argmax() or abs(share - 0.5) < 1e-3


def test_cutmix_puts_a_box_of_the_partner_into_the_image_and_counts_its_pixels():
    found = batch(images := made(Mix(mixup=0, cutmix=1.0)))
    keys = torch.arange(COUNT)
    partners = images.mix.partners(keys % CLASSES, images.mix.chance(keys, 0))
    sizes = set()
    for row, partner in enumerate(partners.tolist()):
        picture = found["input"][row, 0]
        theirs = (picture == partner / COUNT) if row != partner else torch.zeros_like(picture, dtype=torch.bool)
        assert ((picture == row / COUNT) | theirs).all()
        ys, xs = theirs.nonzero(as_tuple=True)
        if len(ys):
            assert int(theirs.sum()) == (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
        share = 1 - float(theirs.float().mean())
        sizes.add(share)
        if partner % CLASSES != row % CLASSES:
            assert float(found["soft_label"][row, row % CLASSES]) == pytest.approx(share)
            assert float(found["soft_label"][row, partner % CLASSES]) == pytest.approx(1 - share)
    assert len(sizes) > 10
    assert torch.allclose(found["soft_label"].sum(1), torch.ones(COUNT))


@pytest.mark.parametrize("a", [0.2, 1.0, 3.0])
def test_shares_have_the_beta_distribution(a):
    images = made(Mix(mixup=a, cutmix=0))
    shares = images.mix.shares[0][(torch.rand(20_000, generator=torch.Generator().manual_seed(1)) * 65536).long()]
    points = np.linspace(0.01, 0.99, 25)
    below = (shares.numpy()[:, None] < points).mean(0)
    np.testing.assert_allclose(below, beta(a, a).cdf(points), atol=0.015)


def test_partners_are_uniform_over_the_set():
    images = made(Mix())
    keys = torch.arange(COUNT)
    drawn = torch.cat([images.mix.partners(keys % CLASSES, images.mix.chance(keys, view)) for view in range(50)])
    counts = torch.bincount(drawn, minlength=COUNT)
    assert counts.min() > 20
    assert counts.max() < 90


def test_a_picture_depends_on_seed_view_and_key_alone():
    whole = batch(made(Mix(), augment=[Flip(0.5)]))
    rows = torch.tensor([7, 3, 399, 3])
    part = batch(made(Mix(), augment=[Flip(0.5)]), rows)
    for name in ("input", "label", "soft_label"):
        assert torch.equal(part[name], whole[name][rows])
    for other in (batch(made(Mix(), seed=4)), batch(made(Mix()), epoch=1)):
        assert (other["soft_label"] != whole["soft_label"]).any(1).float().mean() > 0.5


def test_both_are_chosen_as_often_as_asked_and_others_keep_their_bits():
    images = made(Mix(mixup=1.0, cutmix=1.0, probability=0.5, switch=0.25))
    found = batch(images)
    same = (found["input"] == torch.arange(COUNT)[:, None, None, None] / COUNT).flatten(1).all(1)
    boxes = (found["input"].flatten(1).amax(1) != found["input"].flatten(1).amin(1)).sum()
    assert 0.4 < same.float().mean() < 0.65
    assert 0.05 < boxes / COUNT < 0.2
    whole = found["soft_label"].amax(1) == 1
    assert whole[same].all()


def test_an_example_without_a_label_is_mixed_with_others_without():
    labels = torch.where(torch.arange(COUNT) % 2 == 0, torch.arange(COUNT) % CLASSES, NO_LABEL)
    found = batch(images := made(Mix(), labels=labels))
    partners = images.mix.partners(labels, images.mix.chance(torch.arange(COUNT), 0))
    assert torch.equal(partners % 2, torch.arange(COUNT) % 2)
    assert (found["label"][1::2] == NO_LABEL).all()
    assert not found["soft_label"][1::2].any()
    assert torch.allclose(found["soft_label"][::2].sum(1), torch.ones(COUNT // 2))


def test_the_set_moves_with_its_tensors():
    images = made(Mix())
    moved = images.moved(lambda x: x.clone())
    assert torch.equal(batch(moved)["input"], batch(images)["input"])
    assert moved.mix.shares is not images.mix.shares
    assert replace(moved, mix=None).mix is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mixup": -1}, "data.mix.mixup must be 0 or more; found -1"),
        ({"cutmix": float("nan")}, "data.mix.cutmix must be 0 or more; found nan"),
        ({"probability": 1.5}, "data.mix.probability must be in"),
        ({"mixup": 0, "cutmix": 0}, "both 0"),
    ],
)
def test_arguments_that_mean_nothing(given, said):
    with pytest.raises(TutelageError, match=said):
        Mix(**given)


MIX = "data.mix={_target_: tutelage.data.mix.Mix}"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([MIX, "loss=dkd"], "loss.terms.dkd of stages.student needs one"),
        ([MIX, "loss.class_weights=balanced"], "can't be combined with loss.class_weights"),
        (["+stages.teacher." + MIX, "loss.class_weights=balanced"], r"loss.class_weights \(stages.teacher\)"),
        ([MIX, "sources=specialists"], "specialists learn one class an example"),
    ],
)
def test_what_needs_one_class_an_example_is_refused(compose, overrides, said):
    with pytest.raises(TutelageError, match=said):
        validate.check(compose(*overrides))


def test_the_hard_term_learns_the_mixed_label(compose):
    plan = validate.check(compose(MIX, "+stages.teacher.data.mix=null"))
    data = factory.data(plan.student)
    found = data.splits["train"][0, torch.arange(16)]
    assert found["soft_label"].shape == (16, 10)
    assert "soft_label" not in data.splits["val"][0, torch.arange(4)]
    module = factory.supervised_module(plan.control, "control", data, None)
    module.dry_run(data)  # on images that are not mixed
    logits = torch.randn(16, 10, generator=torch.Generator().manual_seed(0))
    total, _ = module.objective({"student": {"logits": logits}, "batch": found})
    expected = -(found["soft_label"].double() * logits.double().log_softmax(1)).sum(1).mean()
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    other = data.with_seed(5).splits["train"][0, torch.arange(16)]
    assert not torch.equal(other["soft_label"], found["soft_label"])
