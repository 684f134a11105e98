"""Images of a set by their indices: in one tensor, or of several origins."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.data.augment import Crop, Croppable, Pixels
from tutelage.data.floats import as_floats


@dataclass(frozen=True, eq=False)
class MemoryPixels:
    """All images in one tensor.

    Args:
        images: [N, C, H, W], uint8 of 0…255, or float32, used unchanged.
    """

    images: Tensor

    def __getitem__(self, rows: Tensor) -> Tensor:
        images = self.images.index_select(0, rows)
        if images.dtype != torch.uint8:
            return images
        # By a tensor of the same device: CUDA multiplies by 1/255 where the divisor is a number, to other last bits.
        return images.float().div_(torch.full((), 255.0, device=images.device))

    def content(self) -> bytes:
        """Returns dtype, shape and a digest of all pixels."""
        return repr((self.images.dtype, self.images.shape)).encode() + digest(self.images)


@dataclass(frozen=True, eq=False)
class JoinedPixels:
    """Images of several origins with consecutive indices.

    Args:
        parts: the images of each origin.
        counts: number of images of each.
    """

    parts: tuple[Pixels, ...]
    counts: tuple[int, ...]

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self._gathered(rows, lambda part, own, places: part[own])

    def cropped(self, rows: Tensor, crop: Crop, chance: Tensor) -> Tensor:
        """Returns parts of the images, of the originals where these are files."""

        def taken(part: Pixels, own: Tensor, places: Tensor) -> Tensor:
            if isinstance(part, Croppable):
                return as_floats(part.cropped(own, crop, chance[places]))
            return crop(part[own], chance[places])

        return self._gathered(rows, taken)

    def _gathered(self, rows: Tensor, read: Callable[[Pixels, Tensor, Tensor], Tensor]) -> Tensor:
        first = torch.tensor([0, *self.counts]).cumsum(0)
        part = torch.bucketize(rows, first[1:], right=True)
        places = {i: (part == i).nonzero()[:, 0] for i in part.unique().tolist()}
        found = [read(self.parts[i], rows[own] - first[i], own) for i, own in places.items()]
        return torch.cat(found)[part.argsort(stable=True).argsort()]

    def content(self) -> bytes:
        """Returns the content digest of all parts together."""
        return b"".join(hashlib.sha256(part.content()).digest() for part in self.parts)


def digest(x: Tensor) -> bytes:
    """Returns the SHA-256 digest of a tensor's values."""
    return hashlib.sha256(x.contiguous().numpy().data).digest()
