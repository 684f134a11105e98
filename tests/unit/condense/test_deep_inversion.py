"""DeepInversion: its loss against a plain computation, what its images have, and going on after a kill."""

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.api import Preprocess
from tutelage.condense.deep_inversion import DeepInversion, batch_norms
from tutelage.condense.images import TrainingSet
from tutelage.errors import TutelageError


def network(seed, *more):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(),
        nn.Flatten(), nn.Linear(5 * 16, 3), *more,
    )  # fmt: skip


@pytest.fixture
def train():
    """Images of three classes, for their size; the colours of black and white."""
    black, white = torch.tensor([-1.0, -2.0])[:, None, None], torch.tensor([1.0, 2.0])[:, None, None]
    return TrainingSet(torch.zeros(6, 2, 6, 6), torch.arange(6) % 3, 3, black, white)


@pytest.fixture
def teacher(train):
    """A network that has seen the three colours of its classes."""
    net = network(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        labels = torch.arange(30) % 3
        images = (labels[:, None, None, None] - 1) * 0.6 + 0.3 * torch.randn(30, 2, 6, 6)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net.eval()


def method(teacher, **options):
    return DeepInversion(teacher, **{"per_class": 4, "batch": 6, "steps": 7, "warmup": 2} | options)


def test_the_loss_is_that_of_its_formula(teacher):
    student = network(5)
    weights = {"one_hot": 0.7, "norms": 3.0, "first_norm": 10.0, "tv_l2": 0.1, "tv_l1": 0.2, "l2": 0.3}
    made = method(teacher.double(), student=student.double(), competition=2.0, **weights)
    x, labels = torch.randn(5, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    inputs = [x]
    for layer in teacher:
        inputs.append(layer(inputs[-1]))
    z, s = inputs[-1].detach().numpy(), student.eval()(x).detach().numpy()

    def probabilities(logits, temperature):
        powers = np.exp(logits / temperature)
        return powers / powers.sum(1, keepdims=True)

    expected = -0.7 * np.log(probabilities(z, 1)[range(5), labels.numpy()]).mean()
    for factor, place in ((10, 1), (1, 4)):
        values = inputs[place].detach().numpy().transpose(1, 0, 2, 3).reshape(inputs[place].shape[1], -1)
        mean, variance = teacher[place].running_mean.numpy(), teacher[place].running_var.numpy()
        expected += 3 * factor * np.sqrt(((values.mean(1) - mean) ** 2).sum())
        expected += 3 * factor * np.sqrt(((values.var(1) - variance) ** 2).sum())
    p, q = probabilities(s, 3), probabilities(z, 3)
    m = np.clip((p + q) / 2, 0.01, 0.99)
    js = sum((m * np.log(m / np.clip(side, 0.01, 0.99))).sum() / 5 for side in (p, q)) / 2
    expected += 2 * (1 - np.clip(js, 0, 1))
    pixels = x.numpy()
    for down, across in ((0, 1), (1, 0), (1, -1), (1, 1)):
        here = pixels[:, :, : 6 - down, max(0, -across) : 6 - max(0, across)]
        there = pixels[:, :, down:, max(0, across) : 6 - max(0, -across)]
        expected += 0.1 * np.sqrt(((here - there) ** 2).sum()) + 0.2 * np.abs(here - there).mean()
    expected += 0.3 * np.mean([np.sqrt((image**2).sum()) for image in pixels])
    assert made.loss(x, labels).item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda images: made.loss(images, labels), x.requires_grad_())


def test_the_teacher_sees_their_class_and_its_own_statistics(teacher, train, tmp_path):
    made = method(teacher, steps=150, warmup=10, flip=False)
    first, found = made.start(train, 0), made.condense(train, 0, tmp_path)
    labels = found.targets.argmax(1)
    assert labels.bincount().tolist() == [4, 4, 4]
    assert torch.equal(teacher(found.images).argmax(1), labels)
    distances = [
        made.statistics(*[[made.teacher(one.images)[f"{name}{end}"] for name in made.layers] for end in ENDS]).item()
        for one in (first, found)
    ]
    assert distances[1] < 0.5 * distances[0]
    assert bool(((found.images >= train.lowest) & (found.images <= train.highest)).all())
    assert np.isnan(made.accuracy(found, train))


ENDS = ("", ".running_mean", ".running_var")


def test_one_that_was_stopped_in_its_second_batch_ends_in_the_same_bits(teacher, train, tmp_path, monkeypatch):
    whole = method(teacher, save_every=3).condense(train, 1, tmp_path / "whole")

    class Killed(BaseException):
        pass

    stopped, calls = method(teacher, save_every=3), iter(range(11))
    compute = stopped.loss

    def dying(images, labels):
        if next(calls, None) is None:
            raise Killed
        return compute(images, labels)

    monkeypatch.setattr(stopped, "loss", dying)
    with pytest.raises(Killed):
        stopped.condense(train, 1, tmp_path / "stopped")
    assert torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)["step"] == 9
    again = method(teacher, save_every=3).condense(train, 1, tmp_path / "stopped")
    assert torch.equal(whole.images, again.images)


def test_the_rate_rises_and_falls_and_images_move_as_one(teacher):
    made = method(teacher, steps=102, warmup=2)
    assert [made.factor(step) for step in (0, 1, 2, 52)] == pytest.approx([0.5, 1, 1, 0.5])
    assert made.factor(101) < 1e-3
    images = torch.randn(3, 2, 6, 6)
    moved = [made.moved(images, 0, 0, step) for step in range(20)]
    assert all(torch.equal(one.flatten(1).sort(1).values, images.flatten(1).sort(1).values) for one in moved)
    assert len({one.numpy().tobytes() for one in moved}) > 10
    assert torch.equal(moved[3], made.moved(images, 0, 0, 3))
    assert torch.equal(method(teacher, shift=0, flip=False).moved(images, 0, 0, 3), images)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"per_class": 0}, r"condense\.per_class must be a whole number of at least 1; found 0"),
        ({"tv_l2": -1}, r"condense\.tv_l2 must be at least 0; found -1"),
        ({"lr": 0}, r"condense\.lr must be above 0; found 0"),
        ({"student": network(1, nn.Linear(3, 4))}, r"condense\.student: Sequential answers \[2, 4\] to 2 images"),
        ({"student": nn.Sequential(nn.Conv2d(3, 1, 1))}, r"condense\.student: .* does not take images \[2, 6, 6\]: G"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(teacher, train, options, said):
    with pytest.raises(TutelageError, match=said):
        method(teacher, **options).start(train, 0)


def test_a_teacher_of_another_normalisation_is_refused(teacher, train):
    teacher.__dict__["preprocess"] = Preprocess([0.5, 0.5], [0.5, 0.25])
    method(teacher).start(train, 0)
    teacher.__dict__["preprocess"] = Preprocess([0.5, 0.5], [0.5, 0.5])
    with pytest.raises(TutelageError, match=r"condense\.teacher was trained on images of another normalisation .*0\.5"):
        method(teacher).start(train, 0)


def test_a_teacher_without_batch_norms_is_refused_unless_they_are_not_compared(train):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    assert batch_norms(plain) == []
    with pytest.raises(TutelageError, match=r"condense\.teacher: Sequential has no BatchNorm layer, whose statistics"):
        method(plain)
    assert method(plain, norms=0.0).start(train, 0).images.shape == (12, 2, 6, 6)
