"""Several digits of MNIST on one canvas: which are there, and which pixel belongs to which."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage import seeding
from tutelage.data.examples import Examples
from tutelage.data.idx import IdxImages
from tutelage.data.pixels import MemoryPixels
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

DIGITS = 10
INK = 64  # a pixel darker than this, of 255, is background
_SIDE = 14  # of a digit: MNIST's 28, halved
_LEVELS = 1 << 24  # of a uniform number


class Drawn(NamedTuple):
    """Canvases and what is on them.

    Attributes:
        images: [N, 1, H, W] uint8.
        present: [N, 10] bools, which digits are on the canvas.
        owner: [N, H, W] uint8, the digit whose ink is brightest at a pixel; 10 where there is none.
    """

    images: Tensor
    present: Tensor
    owner: Tensor


class Canvas(IdxImages):
    """Draws canvases of ``input_shape`` from the images of MNIST or Fashion-MNIST.

    Canvas i of a part is a function of (``canvas_seed``, part, i): how many digits it has is uniform in ``digits``,
    each is any image of that part of MNIST, halved to 14×14, at any place; where two overlap, the brighter pixel is
    seen. Training and validation canvases share the 60,000 training images, test canvases are
    made of the 10,000 others.

    Args:
        input_shape: (1, H, W), sides of at least 14.
        digits: the least and the largest number of digits on a canvas.
        train_size: number of training canvases, including validation.
        test_size: number of test canvases.
        canvas_seed: of what is drawn, whatever the run's seed.
        **common: arguments of :class:`~tutelage.data.idx.IdxImages`.

    Raises:
        TutelageError: a canvas is too small, or a number is out of range.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        digits: Sequence[int] = (1, 4),
        train_size: int = 4800,
        test_size: int = 1000,
        canvas_seed: int = 0,
        **common: Any,
    ):
        super().__init__(input_shape=input_shape, **common)
        self.digits, self.canvas_seed = tuple(digits), canvas_seed
        self.sizes = {"train": train_size, "test": test_size}
        if self.input_shape[0] != 1 or min(self.input_shape[1:]) < _SIDE:
            raise TutelageError(
                f"data.input_shape must be [1, height, width] with sides of at least {_SIDE}; found {[*input_shape]}"
            )
        if len(self.digits) != 2 or not 1 <= self.digits[0] <= self.digits[1]:
            raise TutelageError(f"data.digits must be [least, largest], both at least 1; found {[*digits]}")
        for part, size in self.sizes.items():
            if size < 1:
                raise TutelageError(f"data.{part}_size must be at least 1; found {size}")

    def load(self) -> tuple[Examples, Examples]:
        """Reads MNIST and draws the canvases."""
        train, test = (self._drawn(part, digits) for part, digits in zip(self.sizes, super().load(), strict=True))
        return train, test

    @abstractmethod
    def labels_of(self, drawn: Drawn) -> Tensor:
        """Returns the labels [N, …] of canvases."""

    def _drawn(self, part: str, digits: Examples) -> Examples:
        assert isinstance(digits.pixels, MemoryPixels)
        seed = seeding.derive_seed(self.canvas_seed, "canvas", part)
        drawn = draw(
            digits.pixels.images, digits.labels.long(), self.sizes[part], self.input_shape[1:], self.digits, seed
        )
        return Examples(MemoryPixels(drawn.images), self.labels_of(drawn))


class WhichDigits(Canvas):
    """Canvases with the label [10] floats: 1 for each digit that is there, else 0. Arguments of :class:`Canvas`."""

    def labels_of(self, drawn: Drawn) -> Tensor:
        """Returns [N, 10] floats."""
        return drawn.present.float()


class WhichPixels(Canvas):
    """Canvases with a label for each pixel [H, W]: the digit whose ink it is.

    Args:
        background: whether pixels without ink are class 10; otherwise they have no label (−100).
        num_classes: 11, or 10 without ``background``.
        **common: arguments of :class:`Canvas`.

    Raises:
        TutelageError: another number of classes.
    """

    def __init__(self, *, background: bool = True, num_classes: int, **common: Any):
        if num_classes != DIGITS + background:
            raise TutelageError(
                f"data.num_classes must be {DIGITS + background} with data.background={str(background).lower()}; "
                f"found {num_classes}"
            )
        super().__init__(num_classes=num_classes, **common)
        self.background = background

    def labels_of(self, drawn: Drawn) -> Tensor:
        """Returns [N, H, W] integers."""
        return drawn.owner if self.background else drawn.owner.short().where(drawn.owner < DIGITS, NO_LABEL)


def draw(
    images: Tensor, labels: Tensor, count: int, size: tuple[int, ...], digits: tuple[int, ...], seed: int
) -> Drawn:
    """Draws canvases; canvas i is a function of the images, ``size``, ``digits``, ``seed`` and i.

    Args:
        images: [M, 1, 28, 28] uint8.
        labels: [M] int64, 0 to 9.
        count: N, how many.
        size: height and width of a canvas.
        digits: the least and the largest number of digits on it.
        seed: any integer.
    """
    least, most = digits
    small = F.avg_pool2d(images.float(), 2).round().to(torch.uint8)[:, 0]
    rows = torch.arange(count)
    chance = (seeding.uniform(seed, rows, 1 + 3 * most) * _LEVELS).long()  # integers, so that no product is rounded
    number = least + (chance[:, 0] * (most - least + 1) // _LEVELS)
    canvas, owner = torch.zeros(count, *size, dtype=torch.uint8), torch.full((count, *size), DIGITS, dtype=torch.uint8)
    present = torch.zeros(count, DIGITS, dtype=torch.bool)
    side = torch.arange(_SIDE)
    for turn in range(most):
        drawn, top, left = chance[:, 1 + 3 * turn : 4 + 3 * turn].unbind(1)
        which, on = drawn * len(images) // _LEVELS, rows[number > turn]
        corner = [place * (sides - _SIDE + 1) // _LEVELS for place, sides in zip((top, left), size, strict=True)]
        place = on[:, None, None], (corner[0][on, None] + side)[:, :, None], (corner[1][on, None] + side)[:, None]
        ink, below, mine = small[which[on]], canvas[place], labels[which[on]]
        seen = ink > below
        canvas[place] = ink.where(seen, below)
        owner[place] = mine[:, None, None].to(torch.uint8).where(seen, owner[place])
        present[on, mine] = True
    owner[canvas < INK] = DIGITS
    return Drawn(canvas[:, None], present, owner)
