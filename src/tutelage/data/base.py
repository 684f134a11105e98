"""The base of all image data: pixels, their normalisation and augmentation."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tutelage.data.augment import Augment, Step
from tutelage.data.examples import (
    Examples,
    ImageSet,
    MemoryPixels,
    Normalise,
    check_images,
    check_labels,
    normalised,
)
from tutelage.data.module import Data
from tutelage.errors import TutelageError


class ImageData(Data):
    """Images with labels, as batches ``{"input": [B, C, H, W] float32 normalised, "label": [B], "key": [B]}``.

    A subclass says in :meth:`load` what the examples are.

    Args:
        input_shape: (C, H, W).
        mean: of a pixel in [0, 1], one number a channel.
        std: the same.
        augment: steps (:mod:`tutelage.data.augment`) on training images.
        views: how many different pictures augmentation makes of an example; epoch e shows number e mod views.
        check_finite: whether to refuse NaN and ±∞ among pixels that are given as floats.
        seed: of the order and the augmentation.
        **common: arguments of :class:`~tutelage.data.module.Data`.

    Raises:
        TutelageError: an argument is out of range.
    """

    seen_through = ("mean", "std")

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        augment: Iterable[Step] | None = None,
        views: int | None = None,
        check_finite: bool = True,
        **common: Any,
    ):
        super().__init__(seed=seed, **common)
        self.input_shape, self.check_finite = tuple(input_shape), check_finite
        self.augment = Augment(augment, seed, views) if augment else None
        self._check_pixels(mean, std)
        self.normalise = Normalise(*(torch.tensor([*x], dtype=torch.float32)[:, None, None] for x in (mean, std)))

    def checked(self, part: str, examples: Examples) -> Examples:
        """Labels are classes, images in memory of the shape that was given.

        Raises:
            TutelageError: they are not; names the first that is not.
        """
        name = f"{self.name} {part}"
        check_labels(name, examples.labels, self.num_classes)
        if isinstance(examples.pixels, MemoryPixels):
            check_images(name, examples.pixels.images, len(examples), self.input_shape, self.check_finite)
        return replace(examples, labels=examples.labels.long())

    def as_set(self, examples: Examples, keys: Tensor) -> ImageSet:
        """Images in memory are normalised once and for all."""
        if isinstance(examples.pixels, MemoryPixels):
            return ImageSet(normalised(examples, self.normalise), keys)
        return ImageSet(examples, keys, self.normalise)

    def for_training(self, plain: ImageSet, examples: Examples) -> ImageSet:
        """Augmented, where so configured."""
        return ImageSet(examples, plain.keys, self.normalise, self.augment) if self.augment else plain

    def pictures(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W], before normalisation."""
        return (inputs * self.normalise.std + self.normalise.mean).clamp(0, 1)

    def _check_pixels(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise TutelageError(f"data.input_shape must be [channels, height, width]; found {list(self.input_shape)}")
        for key, values in (("mean", mean), ("std", std)):
            if len(values) != self.input_shape[0]:
                raise TutelageError(
                    f"data.{key} needs {self.input_shape[0]} numbers, one a channel; found {list(values)}"
                )
        if min(std) <= 0:
            raise TutelageError(f"data.std must be above 0; found {list(std)}")
