"""Augmentation as a pure function of (seed, view, key): the same example in the same view has the same pixels.

It doesn't matter which batch, order, worker or run the example comes in, so a teacher and a student, a cache and a
resumed run all see the same picture. Images are in [0, 1]: augmentation comes before normalisation.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage import seeding
from tutelage.data.chance import Chance, Views, drawn
from tutelage.data.floats import as_floats, empty_batch, finished
from tutelage.errors import TutelageError
from tutelage.runtime import devices
from tutelage.types import NO_LABEL

_LARGE = 1 << 14  # values of an image from which on it is mirrored by itself: seven times as fast at 3 × 224 × 224
_AT_ONCE = 12  # images of files: what is in between stays in the processor's cache; views of an image are 2, 3 or 4


class Pixels(Protocol):
    """Images by index, from one tensor in memory or from files."""

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Returns the images ``rows`` [B] int64 as a new float32 tensor in [0, 1]: [B, C, H, W]."""

    def content(self) -> bytes:
        """Returns bytes that identify the images."""


@runtime_checkable
class Step(Protocol):
    """One augmentation; its random numbers are an argument, so it draws none itself.

    One that has ``takes_bytes = True`` is given images of files as uint8 and returns uint8, so that no floats are made
    of them before it.
    """

    draws: int  # number of uniform random numbers per example

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        """Augments images; row i of the result depends only on ``images[i]`` and ``chance[i]``.

        Args:
            images: [B, C, H, W] float32 in [0, 1].
            chance: [B, draws] float32, uniform in [0, 1).

        Returns:
            [B, C, H, W].
        """


@runtime_checkable
class Crop(Step, Protocol):
    """A step that takes a part of each image and scales it, and can take it of a file in the file's own size."""

    def box(self, height: int, width: int, chance: Sequence[float]) -> tuple[int, int, int, int]:
        """Returns top, left, height and width of the part, in pixels, from the row of random numbers of an image."""

    def scaled(self, image: Tensor, size: tuple[int, int], chance: Sequence[float]) -> Tensor:
        """Returns an image [C, h, w], float32 or uint8, as [C, *size], from the same random numbers."""


@runtime_checkable
class Croppable(Protocol):
    """Images of which parts can be taken before they are scaled to one size."""

    def cropped(self, rows: Tensor, crop: Crop, chance: Tensor) -> Tensor:
        """Returns the parts of the images ``rows`` [B], uint8, or float32 in [0, 1]: [B, C, H, W].

        Args:
            rows: [B] int64.
            crop: says which parts.
            chance: [B, draws], its random numbers.
        """


@runtime_checkable
class MovesLabels(Protocol):
    """A step that can also be applied to labels of pixels; one that moves no pixel returns them as they are."""

    def move_labels(self, labels: Tensor, chance: Tensor) -> Tensor:
        """Moves the labels as the pixels of the images are moved.

        Args:
            labels: [B, H, W] int64.
            chance: [B, draws], what the images were augmented with.

        Returns:
            [B, H, W], ``NO_LABEL`` where no pixel came from the image.
        """


class Augment:
    """Applies augmentations one after the other.

    Args:
        steps: the augmentations; a crop is the first.
        seed: the run's seed.
        views: number of views of an example, view v + views being equal to view v; None: no limit.

    Raises:
        TutelageError: something else than a step, a crop behind another step, or no view.
    """

    def __init__(self, steps: Iterable[Step], seed: int, views: int | None = None):
        self.steps, self.seed, self.views = list(steps), seed, views
        self.view = Chance(seed, views).view  # epoch → the number of the view that it uses
        for step in self.steps:
            if not isinstance(step, Step):
                raise TutelageError(f"data.augment: {type(step).__name__} is not a tutelage.data.augment.Step")
        for step in self.steps[1:]:
            if isinstance(step, Crop):
                raise TutelageError(
                    f"data.augment: {type(step).__name__} takes its part of the original image and must be the first"
                )

    @property
    def crops(self) -> bool:
        """Checks whether the first step takes a part of the original image."""
        return bool(self.steps) and isinstance(self.steps[0], Crop)

    def with_seed(self, seed: int) -> "Augment":
        """Returns the same augmentations with another seed."""
        return Augment(self.steps, seed, self.views)

    def further(self, number: int) -> "Augment":
        """Returns the augmentations that make input ``number`` of a view: the same, drawn independently."""
        return Augment(self.steps, seeding.derive_seed(self.seed, "input", number), self.views)

    def read(
        self,
        pixels: Pixels,
        keys: Tensor,
        view: int | Views,
        finish: Callable[[Tensor], Tensor] | None = None,
        keeps_bytes: bool = False,
    ) -> Tensor:
        """Reads and augments the examples ``keys`` [B]; a crop is taken of the original images where these are files.

        Args:
            pixels: images by key.
            keys: [B] int64.
            view: the number of the view, or that of each example.
            finish: changes pictures [..., C, H, W] in place, last, such as a normalisation; None: nothing.
            keeps_bytes: whether crops of files that are bytes after the last step are returned as they are, unfinished.

        Returns:
            [B, C, H, W].
        """
        if not (len(keys) and self.crops and isinstance(pixels, Croppable)):
            whole = self(pixels[keys], keys, view)
            return finish(whole) if finish else whole
        found: Tensor | None = None
        for rows in torch.arange(len(keys)).split(_AT_ONCE):
            some = self._cropped(pixels, keys[rows], view if isinstance(view, int) else view[rows])
            stays = keeps_bytes and some.dtype == torch.uint8
            if found is None:
                found = empty_batch(len(keys), *some.shape[1:], dtype=torch.uint8 if stays else torch.float32)
            part = found[rows[0] : rows[-1] + 1]
            if stays:
                part.copy_(some)
            else:
                finished(some, part, finish)
        assert found is not None
        return found

    def _cropped(self, pixels: Croppable, keys: Tensor, view: int | Views) -> Tensor:
        (crop, own), *others = self._drawn(keys, view)
        assert isinstance(crop, Crop)
        images = pixels.cropped(keys, crop, own)
        for step, chance in others:
            images = step(images if getattr(step, "takes_bytes", False) else as_floats(images), chance)
        return images

    def __call__(self, images: Tensor, keys: Tensor, view: int | Views) -> Tensor:
        """Returns view ``view`` of the examples ``keys`` [B], or of each its own: [B, C, H, W]."""
        for step, chance in self._drawn(keys, view):
            images = step(images, chance)
        return images

    def move_labels(self, labels: Tensor, keys: Tensor, view: int | Views) -> Tensor:
        """Returns the labels [B, H, W] of the pixels of view ``view``."""
        for step, chance in self._drawn(keys, view):
            assert isinstance(step, MovesLabels)
            labels = step.move_labels(labels, chance)
        return labels

    def check_moves_labels(self) -> None:
        """Refuses steps that say nothing about labels of pixels.

        Raises:
            TutelageError: names the step.
        """
        for step in self.steps:
            if not isinstance(step, MovesLabels):
                raise TutelageError(
                    f"data.augment: {type(step).__name__} changes images, and labels are one for each pixel: it "
                    "needs a method move_labels(labels, chance) that moves them alike "
                    "(tutelage.data.augment.MovesLabels)"
                )

    def _drawn(self, keys: Tensor, view: int | Views) -> Iterator[tuple[Step, Tensor]]:
        draws = [step.draws for step in self.steps]
        chance = drawn(self.seed, "augment", keys, view, sum(draws))
        return zip(self.steps, chance.split(draws, dim=1), strict=True)


class Shift:
    """Moves the image by whole pixels, both offsets uniform in [-pixels, pixels].

    With 2 pixels it is the jitter of MNIST in Hinton et al., "Distilling the Knowledge in a Neural Network" (2015);
    with 4 the random crop after padding of CIFAR in He et al., "Deep Residual Learning" (2016), which then flips.

    Args:
        pixels: the largest offset.
        fill: the grey level, from 0 to 1, that is filled in at the edge.

    Raises:
        TutelageError: ``pixels`` is below 1.
    """

    draws = 2

    def __init__(self, pixels: int, fill: float = 0.0):
        if pixels < 1:
            raise TutelageError(f"Shift.pixels must be at least 1; found {pixels}")
        self.pixels, self.fill = pixels, fill

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        """Returns the shifted images [B, C, H, W], from random numbers [B, 2]."""
        return self._moved(images, chance, self.fill)

    def move_labels(self, labels: Tensor, chance: Tensor) -> Tensor:
        """Returns the shifted labels [B, H, W]; none at the edge that is filled."""
        return self._moved(labels[:, None], chance, NO_LABEL)[:, 0]

    def _moved(self, images: Tensor, chance: Tensor, fill: float) -> Tensor:
        height, width = images.shape[-2:]
        padded = F.pad(images, [self.pixels] * 4, value=fill)
        # Chance has 24 bits: in integers, as not every device has float64, and no float32 product is exact.
        top, left = ((chance * (1 << 24)).long() * (2 * self.pixels + 1) >> 24).unbind(1)
        each = torch.arange(max(len(images), height, width), device=images.device)
        if images.requires_grad:  # the gradient of all windows would be as large as they are
            rows = (top[:, None] + each[:height])[:, None, :, None].expand(-1, images.shape[1], -1, padded.shape[3])
            columns = (left[:, None] + each[:width])[:, None, None].expand(-1, images.shape[1], height, -1)
            return padded.gather(2, rows).gather(3, columns)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [B, C, 2p+1, 2p+1, H, W], no copy
        return windows[each[: len(images)], :, top, left]


class Flip:
    """Mirrors the image left to right.

    Args:
        probability: probability of mirroring an image.

    Raises:
        TutelageError: ``probability`` is outside [0, 1].
    """

    draws = 1
    takes_bytes = True

    def __init__(self, probability: float = 0.5):
        if not 0 <= probability <= 1:
            raise TutelageError(f"Flip.probability must be in [0, 1]; found {probability}")
        self.probability = probability

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        """Returns the images [B, C, H, W], some mirrored, from random numbers [B, 1]."""
        mirrored = chance[:, 0] < self.probability
        if devices.waits(images.device):  # their number is not known here
            return torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        rows = mirrored.nonzero()[:, 0]
        if images[:1].numel() < _LARGE:
            return images.index_copy(0, rows, images.index_select(0, rows).flip(-1))
        made = images.clone()
        for row in rows.tolist():
            made[row] = images[row].flip(-1)
        return made

    def move_labels(self, labels: Tensor, chance: Tensor) -> Tensor:
        """Returns the labels [B, H, W], mirrored where the image is."""
        return self(labels[:, None], chance)[:, 0]
