"""Images of bytes as floats, one after the other: each stays in the processor's cache."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from tutelage.compat.torch import empty_for_other_processes


def empty_batch(*shape: int, dtype: torch.dtype) -> Tensor:
    """Returns an empty batch; in a worker in shared memory, else the whole batch would be copied once more."""
    here = get_worker_info() is None
    return torch.empty(shape, dtype=dtype) if here else empty_for_other_processes(*shape, dtype=dtype)


def finished(images: Tensor, out: Tensor, finish: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Copies images [B, C, H, W], uint8 or float32 in [0, 1], into ``out`` as float32; returns it.

    Args:
        images: on the host.
        out: [B, C, H, W] float32.
        finish: changes each picture [C, H, W] in place, last, while it is in the processor's cache.
    """
    for image, picture in zip(images, out, strict=True):
        picture.copy_(image)
        if image.dtype == torch.uint8:
            picture.div_(255)
        if finish:
            finish(picture)
    return out


def as_floats(images: Tensor) -> Tensor:
    """Returns images [B, C, H, W] on the host, uint8 or float32, as float32 in [0, 1]."""
    return finished(images, torch.empty(images.shape)) if images.dtype == torch.uint8 else images
