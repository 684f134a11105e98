"""Augmentations of other packages that take one image after the other, as functions of (seed, view, key)."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutelage.data.chance import own_generators, seed_generators
from tutelage.errors import TutelageError

_SECTION = re.compile(r"(?:m|n|mmax|inc)\d+|(?:mstd|p)\d*\.?\d+|t(?:weights|3aw|3a)")  # of a string of timm's


class EachImage:
    """Applies a transform of PIL images to each image, such as ``torchvision.transforms.TrivialAugmentWide``.

    What it draws from Python's, NumPy's or torch's global generators is a function of (seed, view, key); the generators
    themselves stay as they were. Images are rounded to 8 bits, and grey ones are shown as colour.

    Args:
        transform: PIL image of mode RGB → one of the same size.
    """

    draws = 2  # 24 bits each, of the seed
    takes_bytes = True

    def __init__(self, transform: Callable[[Any], Any]):
        if not callable(transform):
            raise TutelageError(f"data.augment: EachImage.transform can't be called; found {transform!r}")
        self._transform = transform

    def transform(self, size: tuple[int, int]) -> Callable[[Any], Any]:
        """Returns the transform for images of ``size`` (height, width)."""
        return self._transform

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        """Returns the images [B, C, H, W], C being 1 or 3, transformed, from random numbers [B, 2].

        Images of bytes stay bytes.

        Raises:
            TutelageError: the images have other channels, or the transform fails or gives another size.
        """
        if images.shape[1] not in (1, 3):
            raise TutelageError(f"{type(self).__name__} needs images of 1 or 3 channels; found {images.shape[1]}")
        size = images.shape[-2], images.shape[-1]
        are_bytes = images.dtype == torch.uint8
        rounded = images if are_bytes else (images * 255).round_().clamp_(0, 255).to(torch.uint8)
        pixels = rounded.cpu().numpy()
        seeds, transform, made = (chance * (1 << 24)).long().tolist(), self.transform(size), np.empty_like(pixels)
        with own_generators():
            for row, seed in enumerate(seeds):
                seed_generators("each image", *seed)
                made[row] = self._one(transform, pixels[row])
        found = torch.from_numpy(made).to(images.device)
        return found if are_bytes else found.float().div_(255)

    def _one(self, transform: Callable[[Any], Any], pixels: np.ndarray) -> np.ndarray:
        bands = [Image.fromarray(band) for band in pixels]  # Pillow interleaves them faster than NumPy
        grey = len(bands) == 1
        image = bands[0].convert("RGB") if grey else Image.merge("RGB", bands)
        try:
            found = transform(image).convert("L" if grey else "RGB")
        except Exception as error:  # it is anyone's
            raise TutelageError(f"data.augment: {type(transform).__name__} failed: {error}") from error
        if found.size != image.size:
            raise TutelageError(
                f"data.augment: {type(transform).__name__} made {found.size} (width, height) of {image.size}; the size "
                "must stay"
            )
        return np.asarray(found).reshape(*pixels.shape[1:], -1).transpose(2, 0, 1)


class RandAugment(EachImage):
    """RandAugment by the strings of timm: ``rand-m9-mstd0.5-inc1`` and the like.

    ``m`` is the magnitude, ``mstd`` the standard deviation of its noise, ``n`` the number of operations (2), ``p``
    the probability of each (0.5), ``inc1`` makes all of them stronger with the magnitude. As in timm's
    training, images move by at most 0.45 of the shorter side and the edge is filled with ``fill``.
    Cubuk et al., "RandAugment" (2020), arXiv:1909.13719.

    Args:
        config: the string.
        fill: the colour at the edge, three numbers in [0, 1]; by default ImageNet's mean.
        interpolation: ``bilinear``, ``bicubic``, or ``random``: one of both for each operation.

    Raises:
        TutelageError: timm is missing, or does not know the string.
    """

    def __init__(
        self,
        config: str,
        fill: tuple[float, float, float] = (0.485, 0.456, 0.406),
        interpolation: str = "random",
    ):
        if len(fill) != 3 or not all(0 <= x <= 1 for x in fill):
            raise TutelageError(f"RandAugment.fill must be three numbers in [0, 1]; found {list(fill)}")
        if interpolation not in ("bilinear", "bicubic", "random"):
            raise TutelageError(
                f"RandAugment.interpolation must be bilinear, bicubic or random; found {interpolation!r}"
            )
        self.config, self.fill, self.interpolation = config, tuple(fill), interpolation
        self._made: dict[tuple[int, int], Callable[[Any], Any]] = {}
        super().__init__(self.transform((224, 224)))

    def transform(self, size: tuple[int, int]) -> Callable[[Any], Any]:
        """Returns timm's transform for images of ``size`` (height, width)."""
        if size not in self._made:
            self._made[size] = self._of_timm(min(size))
        return self._made[size]

    def _of_timm(self, side: int) -> Callable[[Any], Any]:
        try:
            from timm.data.auto_augment import posterize, rand_augment_transform
        except ImportError as error:
            raise TutelageError("RandAugment needs timm: pip install 'tutelage[vision]'") from error
        for section in self.config.split("-")[1:]:
            if not _SECTION.fullmatch(section):  # timm leaves some of them out in silence
                raise TutelageError(
                    f"RandAugment.config={self.config!r}: {section!r} is none of m9, mstd0.5, mmax10, n2, p0.5, inc1, "
                    "tweights and the like"
                )
        given: dict[str, Any] = {
            "translate_const": int(side * 0.45), "img_mean": tuple(min(255, round(255 * x)) for x in self.fill),
        }  # fmt: skip
        if self.interpolation != "random":
            given["interpolation"] = Image.Resampling[self.interpolation.upper()]
        try:
            made = rand_augment_transform(self.config, given)
        except Exception as error:  # timm asserts, or fails to read a number
            raise TutelageError(
                f"RandAugment.config={self.config!r} is no string of timm's, such as 'rand-m9-mstd0.5-inc1'"
                + (f": {error}" if str(error) else "")
            ) from error
        for operation in made.ops:
            if operation.aug_fn is posterize:
                operation.aug_fn = partial(_posterized, posterize)
        return made


def _posterized(posterize: Callable[..., Any], image: Any, bits: int, **how: Any) -> Any:
    """Posterizes; without a bit the image is black, as in older releases of Pillow, which now refuses it."""
    return posterize(image, bits, **how) if bits > 0 else Image.new(image.mode, image.size)
