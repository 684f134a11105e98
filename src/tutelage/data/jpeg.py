"""Decodes images; JPEGs by torchcodec where it is installed, which is faster than Pillow, to the same pixels."""

import io
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutelage.data.pil_images import plain

_MODES = {("RGB", 3): "RGB", ("L", 1): "GRAY"}  # mode of Pillow's and channels → mode of torchcodec's

Decode = Callable[..., Tensor]  # bytes of a file, mode=… → [C, H, W] uint8


def decoded(image: Image.Image, channels: int, whole: bool = True) -> Tensor:
    """Decodes an opened image.

    Args:
        image: not decoded yet.
        channels: 1 for grey, 3 for RGB.
        whole: false where ``draft`` has asked for a smaller size.

    Returns:
        [C, H, W] uint8.

    Raises:
        OSError, SyntaxError, ValueError: Pillow can't decode the image, or it is none of 8 bits.
    """
    mode = _MODES.get((image.mode, channels)) if whole and image.format == "JPEG" else None
    if mode is not None and (decode := _by_torchcodec()) is not None:
        file = image.fp  # type: ignore[attr-defined]
        file.seek(0)
        try:
            return decode(file.read(), mode=mode)
        except RuntimeError:  # a damaged file, or a kind that it lacks: Pillow reads it, or says what is wrong
            file.seek(0)
    return _by_pillow(plain(image, channels))


def _by_pillow(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image).reshape(image.height, image.width, -1)).permute(2, 0, 1)


@cache
def _by_torchcodec() -> Decode | None:
    """Returns torchcodec's decoder; None where it is missing, or its libjpeg and Pillow's give other pixels."""
    try:
        from torchcodec import decoders

        decode: Any = decoders.decode_jpeg
        samples = [(image, _MODES[image.mode, len(image.getbands())]) for image in _samples()]
        same = all(torch.equal(decode(image.fp.getvalue(), mode=mode), _by_pillow(image)) for image, mode in samples)
    except (ImportError, OSError, RuntimeError):  # it may be built for another release of torch
        return None
    return decode if same else None


def _samples() -> Iterator[Any]:
    """Yields small JPEGs that are not decoded yet: grey, and in colour, with colours of whole and of half the size."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    image = Image.fromarray(pixels).resize((39, 45), Image.Resampling.BICUBIC)
    for one, subsampling in ((image, 0), (image, 2), (image.convert("L"), 0)):
        content = io.BytesIO()
        one.save(content, "JPEG", quality=90, subsampling=subsampling)
        yield Image.open(content)
