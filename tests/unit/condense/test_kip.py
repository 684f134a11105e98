"""Kernel inducing points and label solve: what they minimise, what they beat, and going on after a kill."""

import pytest
import torch

from tutelage.condense.images import STATE, TrainingSet
from tutelage.condense.kernels import FullyConnected, accuracy, regress
from tutelage.condense.kip import KIP, LabelSolve
from tutelage.errors import TutelageError


@pytest.fixture
def sets():
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    centres = torch.randn(3, 1, 4, 4, generator=chance)
    images = centres[labels] + 1.5 * torch.randn(300, 1, 4, 4, generator=chance)
    return TrainingSet(images[:200], labels[:200], 3), TrainingSet(images[200:], labels[200:], 3)


def method(kind, **options):
    return kind(FullyConnected(1), **{"per_class": 2, "targets": 90} | options)


def test_draws_have_as_many_of_each_class_and_are_a_function_of_their_names(sets):
    train, _ = sets
    rows = train.balanced(5, 0, "a")
    assert train.labels[rows].bincount().tolist() == [5, 5, 5]
    assert torch.equal(rows, train.balanced(5, 0, "a"))
    assert not torch.equal(rows, train.balanced(5, 0, "b"))
    targets = train.targets(rows)
    assert targets.argmax(1).tolist() == train.labels[rows].tolist()
    assert targets.sum(1).abs().max() < 1e-12


def test_solved_labels_fit_better_than_any_others_nearby(sets, tmp_path):
    train, test = sets
    solve = method(LabelSolve, targets=180)
    found = solve.condense(train, 0, tmp_path)
    assert torch.equal(found.images, solve.start(train, 0).images)
    fitted = train.balanced(60, 0, "condense", "solve")

    def error(targets):
        own = regress(solve.kernel, found.images, targets, solve.ridge, train.images[fitted].double())
        return (own - train.targets(fitted)).square().mean().item()

    best = error(found.targets)
    assert best < error(solve.start(train, 0).targets)
    for seed in range(5):
        noise = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert best < error(found.targets + 0.05 * noise)
    assert solve.accuracy(found, test) == accuracy(
        solve.kernel, found.images, found.targets, solve.ridge, test.images.double(), test.labels
    )


def test_learned_images_beat_real_ones_and_learned_labels_move(sets, tmp_path):
    train, test = sets
    kip = method(KIP, steps=40)
    found, first = kip.condense(train, 0, tmp_path), kip.start(train, 0)
    assert found.images.dtype == torch.float64
    assert torch.equal(found.targets, first.targets)
    assert kip.accuracy(found, test) > kip.accuracy(first, test)
    labels = method(KIP, steps=3, learn_labels=True).condense(train, 0, tmp_path / "labels").targets
    assert not torch.equal(labels, first.targets)


@pytest.mark.parametrize("learn_labels", [False, True])
def test_a_condensation_that_was_stopped_ends_in_the_same_bits(sets, tmp_path, learn_labels, monkeypatch):
    train, _ = sets
    kip = method(KIP, steps=11, save_every=4, learn_labels=learn_labels)
    whole = kip.condense(train, 3, tmp_path / "whole")
    balanced, calls = TrainingSet.balanced, []

    def stop(self, per_class, *chance):
        calls.append(chance)
        if len(calls) == 8:  # the first images, and the targets of steps 0 to 6
            raise KeyboardInterrupt
        return balanced(self, per_class, *chance)

    monkeypatch.setattr(TrainingSet, "balanced", stop)
    with pytest.raises(KeyboardInterrupt):
        kip.condense(train, 3, tmp_path / "stopped")
    monkeypatch.setattr(TrainingSet, "balanced", balanced)
    assert torch.load(tmp_path / "stopped" / STATE, weights_only=True)["step"] == 4
    again = kip.condense(train, 3, tmp_path / "stopped")
    assert torch.equal(whole.images, again.images)
    assert torch.equal(whole.targets, again.targets)
    assert not torch.equal(whole.images, kip.condense(train, 4, tmp_path / "other").images)


def test_a_damaged_state_is_one_sentence(sets, tmp_path):
    kip = method(KIP, steps=2)
    kip.condense(sets[0], 0, tmp_path)
    content = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(content[: len(content) // 2])
    with pytest.raises(TutelageError, match=r"state\.pt can't be read .*; remove it"):
        kip.condense(sets[0], 0, tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ridge": 0}, r"condense\.ridge must be above 0; found 0"),
        ({"steps": 0}, r"condense\.steps must be a whole number of at least 1; found 0"),
        ({"lr": -1}, r"condense\.lr must be above 0; found -1"),
        ({"targets": 0.5}, r"condense\.targets must be a whole number of at least 1; found 0\.5"),
        ({"per_class": 0}, r"condense\.per_class must be a whole number of at least 1; found 0"),
        ({"per_class": 90}, r"condense\.per_class=90: class \d has 6\d labelled images"),
    ],
)
def test_what_does_not_fit_is_one_sentence(sets, options, said):
    with pytest.raises(TutelageError, match=said):
        method(KIP, **options).start(sets[0], 0)


def test_a_loss_that_is_not_finite_is_one_sentence(sets, tmp_path):
    train, _ = sets
    train.images[:] = float("nan")
    with pytest.raises(TutelageError, match="the loss of step 0 is nan"):
        method(KIP, steps=2).condense(train, 0, tmp_path)
