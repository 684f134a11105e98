"""Several digits on a canvas: a function of (canvas_seed, index), with labels that are what was drawn."""

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from small_mnist import write

from tutelage.data.canvas import DIGITS, INK, draw
from tutelage.types import NO_LABEL


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def make(compose, root):
    def made(name, *overrides):
        small = ("data.train_size=90", "data.val_size=10", "data.test_size=20")
        return instantiate(compose(f"data={name}", *small, f"data.root={root}", *overrides).data)

    return made


def whole(data, part="train"):
    return next(iter(data.whole(part)))


def blocks():
    """Ten images, of each digit one: a square of its own brightness."""
    images = torch.zeros(DIGITS, 1, 28, 28, dtype=torch.uint8)
    for digit in range(DIGITS):
        images[digit, :, 4:24, 4:24] = 100 + 10 * digit
    return images, torch.arange(DIGITS)


def test_every_pixel_is_the_brightest_digit_there_and_labels_say_which_are_drawn():
    drawn = draw(*blocks(), 400, (20, 24), (1, 3), seed=5)
    level = drawn.images[:, 0].long()
    expected = torch.where(level >= INK, (level - 100) // 10, DIGITS)
    assert torch.equal(drawn.owner.long(), expected)
    seen = torch.stack([(drawn.owner == digit).flatten(1).any(1) for digit in range(DIGITS)], 1)
    assert not (seen & ~drawn.present).any()
    assert float((seen == drawn.present).float().mean()) > 0.95  # few are covered entirely
    assert drawn.present.sum(1).unique().tolist() == [1, 2, 3]
    assert (drawn.owner == DIGITS).flatten(1).any(1).all()


def test_digits_are_drawn_equally_often_and_come_to_every_place():
    drawn = draw(*blocks(), 3000, (20, 24), (1, 1), seed=1)
    assert (drawn.present.sum(0) - 300).abs().max() < 60  # 3.6 standard deviations
    corner = (drawn.images[:, 0] > 0).float()
    assert corner[:, 2, 2].any()
    assert corner[:, -3, -3].any()
    assert not corner[:, :2].any()  # the square begins there


def test_a_canvas_depends_on_its_index_and_seed_alone():
    few, many, other = (draw(*blocks(), n, (20, 20), (1, 4), seed) for n, seed in ((7, 3), (90, 3), (7, 4)))
    for own, same in zip(few, many, strict=True):
        assert torch.equal(own, same[:7])
    assert not torch.equal(few.images, other.images)


def test_both_tasks_have_the_same_canvases(make):
    answers, pixels = whole(make("mnist_multilabel")), whole(make("mnist_segmentation"))
    assert torch.equal(answers["input"], pixels["input"])
    assert answers["label"].shape == (80, 10)
    assert set(answers["label"].unique().tolist()) == {0.0, 1.0}
    assert pixels["label"].shape == (80, 32, 32)
    for label, canvas in zip(answers["label"], pixels["label"], strict=True):
        there = set(label.nonzero().flatten().tolist())
        assert set(canvas.unique().tolist()) <= there | {10}
    other = whole(make("mnist_segmentation", "data.canvas_seed=1"))
    assert not torch.equal(other["input"], pixels["input"])
    assert torch.equal(whole(make("mnist_segmentation", "seed=1"))["input"], pixels["input"])


def test_the_background_may_count_for_nothing(make):
    ten = ("data.background=false", "data.num_classes=10", "data.class_names=null")
    with_it, without = whole(make("mnist_segmentation"))["label"], whole(make("mnist_segmentation", *ten))["label"]
    assert torch.equal(without, with_it.where(with_it < 10, NO_LABEL))


def test_pixels_and_labels_move_together(make):
    data = make("mnist_segmentation", "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 2}]")
    moved = next(iter(make("mnist_segmentation", "data.batch_size=64").train_dataloader()))
    batch = next(iter(data.train_dataloader()))
    ink = data.pictures(batch["input"])[:, 0] * 255 > INK - 0.5
    known = batch["label"] != NO_LABEL
    assert torch.equal(ink[known], (batch["label"] < 10)[known])
    assert not known.all()
    assert (moved["label"] != NO_LABEL).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.digits=[3,1]", r"data.digits must be \[least, largest\].* found \[3, 1\]"),
        ("data.digits=[0,2]", "both at least 1"),
        ("data.input_shape=[1,12,32]", "sides of at least 14"),
        ("data.test_size=0", "data.test_size must be at least 1"),
        ("data.background=false", "data.num_classes must be 10 with data.background=false; found 11"),
    ],
)
def test_bad_arguments(make, change, said):
    with pytest.raises(InstantiationException, match=said):
        make("mnist_segmentation", change)
