"""Augmentation through which images learn: differentiable, and the same for all images of a class if asked for."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.errors import TutelageError


class Differentiable:
    """The differentiable augmentation of condensed data: each image undergoes one operation of a strategy, at random.

    * ``color``: ``x + b``, b in ±½; ``s·(x − m) + m``, m over channels, s in [0, 2); ``k·(x − m) + m``, m over all, k
      in [½, 1½);
    * ``crop``: moved by up to an eighth of its sides, zero where nothing came from;
    * ``cutout``: zero in a box of half its sides around a random centre;
    * ``flip``: mirrored with probability ½;
    * ``scale``: each side by its own factor in [1/1.2, 1.2), bilinear;
    * ``rotate``: by up to 15 degrees, bilinear.

    These are operations on normalised images. As a step of ``data.augment``, whose images are in [0, 1], it needs
    ``mean`` and ``std``.

    Args:
        strategy: names of operations; published: all six.
        mean: of pixels, one a channel; None: images are normalised already.
        std: the same.

    Raises:
        TutelageError: an operation is not known, or there is none.

    Zhao & Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", 2021, arXiv:2102.08259; ranges as in
    its code.
    """

    draws = 4  # the operation, and up to three numbers for it

    def __init__(
        self,
        strategy: Iterable[str] = ("color", "crop", "cutout", "flip", "scale", "rotate"),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        self.strategy = list(strategy)
        if not self.strategy or (unknown := [name for name in self.strategy if name not in _OPERATIONS]):
            found = repr(unknown[0]) if self.strategy else "none"
            raise TutelageError(f"Differentiable.strategy: expected some of {', '.join(_OPERATIONS)}; found {found}")
        if (mean is None) != (std is None):
            raise TutelageError("Differentiable: mean and std belong together; one of them is missing")
        self.mean, self.std = (None if one is None else torch.tensor(list(one)) for one in (mean, std))

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        """Returns the images [B, C, H, W], each augmented, from random numbers [B, 4]; of equal rows alike."""
        x = self._scaled(images, lambda x, mean, std: (x - mean) / std)
        chosen = (chance[:, 0] * len(self.strategy)).long()
        for number, name in enumerate(self.strategy):
            rows = (chosen == number).nonzero()[:, 0]
            if len(rows):
                changed = _OPERATIONS[name](x.index_select(0, rows), chance[rows, 1:].to(x.dtype))
                x = x.index_copy(0, rows, changed)
        return self._scaled(x, lambda x, mean, std: x * std + mean)

    def _scaled(self, images: Tensor, change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        if self.mean is None or self.std is None:
            return images
        return change(images, *(one.to(images)[:, None, None] for one in (self.mean, self.std)))


def _color(x: Tensor, chance: Tensor) -> Tensor:
    brightness, saturation, contrast = chance[..., None, None].split(1, dim=1)
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * saturation) + grey
    level = x.mean((1, 2, 3), keepdim=True)
    return (x - level) * (contrast + 0.5) + level


def _whole(chance: Tensor, count: int) -> Tensor:
    """Returns whole numbers below ``count``, [B, 1], as likely as each other."""
    return (chance * count).long().clamp_max(count - 1)[:, None]


def _crop(x: Tensor, chance: Tensor) -> Tensor:
    places = []
    for side, drawn in zip(x.shape[-2:], chance[:, :2].unbind(1), strict=True):
        most = int(side / 8 + 0.5)
        moved = torch.arange(side, device=x.device) + _whole(drawn, 2 * most + 1) - most  # [B, side]
        places.append(moved.clamp(-1, side) + 1)  # 0 and side + 1 are of the zeros around the image
    rows, columns = places
    padded = F.pad(x, [1] * 4).movedim(1, -1)
    each = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None]].movedim(-1, 1)


def _cutout(x: Tensor, chance: Tensor) -> Tensor:
    inside = []
    for side, drawn in zip(x.shape[-2:], chance[:, :2].unbind(1), strict=True):
        size = int(side / 2 + 0.5)
        begin = _whole(drawn, side + 1 - size % 2) - size // 2
        place = torch.arange(side, device=x.device)
        inside.append((place >= begin) & (place < begin + size))
    rows, columns = inside
    return x * ~(rows[:, None, :, None] & columns[:, None, None])


def _flip(x: Tensor, chance: Tensor) -> Tensor:
    return torch.where(chance[:, :1, None, None] < 0.5, x.flip(-1), x)


def _scale(x: Tensor, chance: Tensor) -> Tensor:
    factors = chance[:, :2] * (1.2 - 1 / 1.2) + 1 / 1.2
    return _seen_through(x, torch.diag_embed(factors))


def _rotate(x: Tensor, chance: Tensor) -> Tensor:
    angle = (chance[:, 0] - 0.5) * 2 * math.radians(15)
    cos, sin = angle.cos(), angle.sin()
    return _seen_through(x, torch.stack([cos, -sin, sin, cos], 1).reshape(-1, 2, 2))


def _seen_through(x: Tensor, places: Tensor) -> Tensor:
    """Returns images read, bilinearly, at linear functions [B, 2, 2] of the places (x, y) in [−1, 1]²."""
    grid = F.affine_grid(F.pad(places, (0, 1)), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": _color, "crop": _crop, "cutout": _cutout, "flip": _flip, "scale": _scale, "rotate": _rotate,
}  # fmt: skip
