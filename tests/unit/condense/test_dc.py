"""Gradient matching: a step against one by hand in float64, its distance's limits, and going on after a kill."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tutelage import seeding
from tutelage.condense.dc import GradientMatching, distance
from tutelage.condense.images import STATE, TrainingSet
from tutelage.data.differentiable import Differentiable
from tutelage.errors import TutelageError


@pytest.fixture
def train():
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    images = labels[:, None, None, None] + torch.randn(60, 1, 4, 4, generator=chance)
    return TrainingSet(images.double(), labels, 3)


def method(**options):
    small = {"per_class": 2, "steps": 3, "outer": 2, "inner": 2, "batch": 5, "net_batch": 4, "width": 3, "depth": 1}
    return GradientMatching(**small | options)


def test_the_distance_is_that_of_its_formula():
    chance = torch.Generator().manual_seed(1)
    shapes = ((3, 2, 3, 3), (4, 5))
    one, other = ([torch.randn(*shape, generator=chance).double() for shape in shapes] for _ in range(2))
    expected = 0.0
    for a, b in zip(one, other, strict=True):
        for row, against in zip(a.numpy(), b.numpy(), strict=True):
            norms = np.sqrt((row**2).sum()) * np.sqrt((against**2).sum())
            expected += 1 - (row * against).sum() / (norms + 1e-6)
    assert distance(one, other).item() == pytest.approx(expected, rel=1e-12)
    assert distance(one, one).item() == pytest.approx(0, abs=1e-5)
    assert distance(one, [-x for x in one]).item() == pytest.approx(2 * 7, rel=1e-5)
    assert distance([0 * x for x in one], other).item() == 7  # no gradient at all is as far as a right angle
    assert distance([5 * x for x in one], other).item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_by_the_images_is_that_of_finite_differences(train):
    dc = method(augment=Differentiable(["scale"]))
    net = dc.network(train, 5).double()
    rows = train.balanced(4, 0)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    images = train.images[train.balanced(2, 1)].clone()
    _, gradient = dc.matched(net, train, rows, images, labels, "chance")
    for place in ((0, 0, 1, 2), (3, 0, 2, 2), (5, 0, 0, 1)):
        values = []
        for change in (1e-6, -1e-6):
            moved = images.clone()
            moved[place] += change
            values.append(dc.matched(net, train, rows, moved, labels, "chance")[0])
        assert gradient[place].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-6)


def by_hand(dc, train, seed):
    """One network's steps, with every gradient of all classes in one graph and plain updates."""
    chance = (seed, "condense", 0)
    first = dc.start(train, seed)
    images, labels, velocity = first.images, first.targets.argmax(1), 0
    net = dc.network(train, seed, "condense", "network", 0).double()
    for turn in range(dc.outer):
        rows = train.balanced(dc.batch, *chance, turn)
        leaf, total = images.clone().requires_grad_(), 0
        for c in range(3):
            real = rows[train.labels[rows] == c]
            losses = [
                F.cross_entropy(net(dc.alike(x, y, *chance, "augment", turn)), y)
                for x, y in ((train.images[real], train.labels[real]), (leaf[labels == c], labels[labels == c]))
            ]
            weights = [net.stage1.preact[0].weight, net.classifier.weight]
            expected, found = (torch.autograd.grad(loss, weights, create_graph=True) for loss in losses)
            for a, b in zip(found, expected, strict=True):
                a, b = a.reshape(len(a), -1), b.detach().reshape(len(b), -1)
                total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
        [gradient] = torch.autograd.grad(total, leaf)
        velocity = dc.momentum * velocity + gradient
        images = images - dc.lr * velocity
        if turn == dc.outer - 1:
            break
        for epoch in range(dc.inner):
            seen = dc.apart(images, *chance, "inner", turn, epoch, "augment")
            order = torch.randperm(len(images), generator=seeding.generator(*chance, "inner", turn, epoch))
            for rows in order.split(dc.net_batch):
                loss = F.cross_entropy(net(seen[rows]), labels[rows])
                parameters = list(net.parameters())
                with torch.no_grad():
                    for one, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                        one -= dc.net_lr * slope
    return images


@pytest.mark.parametrize("augment", [None, Differentiable()], ids=["dc", "dsa"])
def test_a_step_is_that_by_hand(train, tmp_path, augment, monkeypatch):
    dc = method(steps=1, augment=augment)
    network = dc.network
    monkeypatch.setattr(dc, "network", lambda *given: network(*given).double())
    found = dc.condense(train, 4, tmp_path)
    torch.testing.assert_close(found.images, by_hand(dc, train, 4), rtol=1e-9, atol=1e-12)
    assert not torch.equal(found.images, dc.start(train, 4).images)


def test_the_published_loops():
    for per_class, outer, inner in ((1, 1, 500), (10, 10, 50), (50, 50, 10)):
        assert method(per_class=per_class, outer=None, inner=None).loops == (outer, inner)
    assert method().loops == (2, 2)


@pytest.fixture
def single(train):
    return TrainingSet(train.images.float(), train.labels, train.classes)


@pytest.mark.parametrize("augment", [None, Differentiable()], ids=["dc", "dsa"])
def test_a_condensation_that_was_stopped_ends_in_the_same_bits(single, tmp_path, augment):
    whole = method(augment=augment).condense(single, 1, tmp_path / "whole")
    method(steps=1, augment=augment).condense(single, 1, tmp_path / "stopped")
    assert torch.load(tmp_path / "stopped" / STATE, weights_only=True)["step"] == 1
    again = method(augment=augment).condense(single, 1, tmp_path / "stopped")
    assert torch.equal(whole.images, again.images)
    assert torch.equal(again.targets, method().start(single, 1).targets)


def test_learned_images_match_better_for_networks_that_they_have_not_met(single, tmp_path):
    dc = method(steps=40, outer=1, batch=20, width=8)
    first, found = dc.start(single, 0), dc.condense(single, 0, tmp_path)
    rows, labels = single.balanced(20, 0), first.targets.argmax(1)
    before, after = (
        sum(dc.matched(dc.network(single, "fresh", i), single, rows, x.images.clone(), labels)[0] for i in range(10))
        for x in (first, found)
    )
    assert after < 0.9 * before
    assert np.isnan(dc.accuracy(found, single))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outer": 0}, r"condense\.outer must be a whole number of at least 1; found 0"),
        ({"inner": 1.5}, r"condense\.inner must be a whole number of at least 1; found 1\.5"),
        ({"net_lr": 0}, r"condense\.net_lr must be above 0; found 0"),
        ({"depth": 3}, r"condense\.depth=3: images of \[4, 4\] can't be halved as often"),
    ],
)
def test_what_does_not_fit_is_one_sentence(single, options, said):
    with pytest.raises(TutelageError, match=said):
        method(**options).start(single, 0)
