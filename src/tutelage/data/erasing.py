"""Random erasing of boxes, by timm's definition."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage import seeding
from tutelage.errors import TutelageError

_TRIALS = 10
_MODES = ("const", "rand", "pixel")


class RandomErasing:
    """Erases boxes of an image: with the mean colour, one random colour, or noise.

    The area of each of ``count`` boxes is uniform in ``area`` times the image's divided by ``count``, the logarithm of
    height / width uniform between those of ``aspect`` and 1 / ``aspect``, the place uniform; a box as high or
    as wide as the image is drawn again, up to ten times, and then left out. What is filled in is 0, a colour of N(0, 1)
    by channel, or N(0, 1) by pixel of *normalised* images, as timm has it; so ``mean`` and ``std`` are the data's.
    Zhong et al., "Random Erasing Data Augmentation" (2017), arXiv:1708.04896.

    Args:
        probability: probability of erasing anything of an image.
        mode: ``const``, ``rand`` (a colour) or ``pixel`` (noise).
        area: smallest and largest share of the image.
        aspect: smallest height / width.
        count: number of boxes, or the smallest and the largest one.
        mean: by channel, as ``data.mean``.
        std: by channel, as ``data.std``.

    Raises:
        TutelageError: an argument is out of range.
    """

    def __init__(
        self,
        probability: float = 0.5,
        mode: str = "const",
        area: Sequence[float] = (0.02, 1 / 3),
        aspect: float = 0.3,
        count: int | Sequence[int] = 1,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ):
        if not 0 <= probability <= 1:
            raise TutelageError(f"RandomErasing.probability must be in [0, 1]; found {probability}")
        if mode not in _MODES:
            raise TutelageError(f"RandomErasing.mode must be {', '.join(_MODES)}; found {mode!r}")
        if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
            raise TutelageError(f"RandomErasing.area must be two numbers in (0, 1], ascending; found {list(area)}")
        if not 0 < aspect <= 1:
            raise TutelageError(f"RandomErasing.aspect must be in (0, 1]; found {aspect}")
        counts = (count, count) if isinstance(count, int) else tuple(count)
        if len(counts) != 2 or not 1 <= counts[0] <= counts[1]:
            raise TutelageError(f"RandomErasing.count must be at least 1, or two such numbers; found {count}")
        self.probability, self.mode, self.area, self.counts = probability, mode, tuple(area), counts
        self.aspect, self.mean, self.std = aspect, list(mean), list(std)
        self.draws = 3 + counts[1] * _TRIALS * 4  # whether, how many, the noise's seed; four a trial

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        """Returns the images [B, C, H, W], boxes of some erased, from random numbers [B, draws].

        Raises:
            TutelageError: ``mean`` or ``std`` are of other channels.
        """
        if not len(self.mean) == len(self.std) == images.shape[1]:
            raise TutelageError(
                f"RandomErasing.mean and std need {images.shape[1]} numbers, one a channel (mean: ${{data.mean}}); "
                f"found {self.mean} and {self.std}"
            )
        made = images.clone()
        mean, std = (torch.tensor(x, dtype=images.dtype)[:, None, None] for x in (self.mean, self.std))
        for row, numbers in enumerate(chance.tolist()):
            for place, (top, left, height, width) in enumerate(self.boxes(images.shape[2], images.shape[3], numbers)):
                noise = self._noise(images.shape[1], height, width, int(numbers[2] * (1 << 24)), place)
                made[row, :, top : top + height, left : left + width] = (mean + std * noise).to(images.device)
        return made

    def boxes(self, height: int, width: int, chance: Sequence[float]) -> list[tuple[int, int, int, int]]:
        """Returns top, left, height and width of the boxes of an image, from its random numbers."""
        if chance[0] >= self.probability:
            return []
        least, most = self.counts
        count, found, end = least + int(chance[1] * (most - least + 1)), [], -math.log(self.aspect)
        for box in range(count):
            for trial in range(_TRIALS):
                first = 3 + 4 * (box * _TRIALS + trial)
                size, shape, down, right = chance[first : first + 4]
                area = (self.area[0] + size * (self.area[1] - self.area[0])) * height * width / count
                ratio = math.exp((2 * shape - 1) * end)
                own = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
                if own[0] < height and own[1] < width:
                    place = int(down * (height - own[0] + 1)), int(right * (width - own[1] + 1))
                    found.append((*place, *own))
                    break
        return found

    def _noise(self, channels: int, height: int, width: int, seed: int, place: int) -> Tensor:
        if self.mode == "const":
            return torch.zeros(channels, 1, 1)
        shape = (channels, height, width) if self.mode == "pixel" else (channels, 1, 1)
        return torch.randn(shape, generator=seeding.generator("erasing", seed, place))
