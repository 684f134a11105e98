"""Random parts of images, taken before an image is scaled to the size of the network's input."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.errors import TutelageError

_TRIALS = 10  # boxes that are tried before the centre is taken, as torchvision and timm do
_MODES = ("bilinear", "bicubic")


class RandomResizedCrop:
    """Takes a part of random area and shape, at a random place, and scales it to the size of the input.

    The area is uniform in ``scale`` times the image's, the logarithm of width / height uniform in log ``ratio``, the
    place uniform. A box that does not fit is drawn again, up to ten times; then the largest one at the centre whose
    shape is allowed is taken. It has the distribution of ``torchvision.transforms.RandomResizedCrop``, and its
    pixels for the same box (antialiased). Images in files are cropped in their own size, others in the size that they
    have in memory. Szegedy et al., "Going Deeper with Convolutions" (2015), section 6.

    Args:
        scale: smallest and largest share of the area.
        ratio: smallest and largest width / height.
        interpolation: ``bilinear``, ``bicubic``, or ``random``: one of both for each image.

    Raises:
        TutelageError: an argument is out of range.
    """

    draws = 2 * _TRIALS + 3  # area and shape of each trial; top, left; interpolation

    def __init__(
        self,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
    ):
        for name, pair, most in (("scale", scale, 1.0), ("ratio", ratio, math.inf)):
            numbers = all(isinstance(one, int | float) for one in pair)
            if len(pair) != 2 or not numbers or not 0 < pair[0] <= pair[1] <= most or math.isinf(pair[1]):
                within = "above 0 and at most 1" if most == 1 else "above 0"
                raise TutelageError(
                    f"RandomResizedCrop.{name} must be two numbers {within}, in ascending order; found {list(pair)}"
                )
        if interpolation not in (*_MODES, "random"):
            raise TutelageError(
                f"RandomResizedCrop.interpolation must be bilinear, bicubic or random; found {interpolation!r}"
            )
        self.scale, self.ratio, self.interpolation = tuple(scale), tuple(ratio), interpolation

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        """Returns a part of each of the images [B, C, H, W], in the same size, from random numbers [B, 23]."""
        size, made = (images.shape[-2], images.shape[-1]), []
        for image, numbers in zip(images, chance.tolist(), strict=True):
            top, left, height, width = self.box(*size, numbers)
            made.append(self.scaled(image[:, top : top + height, left : left + width], size, numbers))
        return torch.stack(made)

    def box(self, height: int, width: int, chance: Sequence[float]) -> tuple[int, int, int, int]:
        """Returns top, left, height and width of the part of an image, from its 23 random numbers."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for trial in range(_TRIALS):
            area = height * width * (self.scale[0] + chance[2 * trial] * (self.scale[1] - self.scale[0]))
            shape = math.exp(low + chance[2 * trial + 1] * (high - low))
            own = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
            if 0 < own[0] <= height and 0 < own[1] <= width:
                down, right = chance[2 * _TRIALS : 2 * _TRIALS + 2]
                return int(down * (height - own[0] + 1)), int(right * (width - own[1] + 1)), *own
        own = height, width
        if width / height < self.ratio[0]:
            own = min(height, max(1, round(width / self.ratio[0]))), width
        elif width / height > self.ratio[1]:
            own = height, min(width, max(1, round(height * self.ratio[1])))
        return (height - own[0]) // 2, (width - own[1]) // 2, *own

    def scaled(self, image: Tensor, size: tuple[int, int], chance: Sequence[float]) -> Tensor:
        """Returns the part [C, h, w] of an image, float32 or uint8, as [C, *size]."""
        mode = _MODES[chance[-1] >= 0.5] if self.interpolation == "random" else self.interpolation
        found = F.interpolate(image[None], size, mode=mode, antialias=True)[0]
        return found.clamp_(0, 1) if found.is_floating_point() else found  # bicubic goes beyond
