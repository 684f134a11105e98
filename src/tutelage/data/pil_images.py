"""PIL images of any mode as plain pictures."""

import numpy as np
from PIL import Image


def eight_bit(image: Image.Image) -> Image.Image:
    """Returns one opaque image of 8 bits per channel; levels of 16 bits are rounded, what is transparent is white.

    Raises:
        ValueError: it has several pages, or more than 16 bits a channel.
    """
    frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1  # a camera's preview is none
    if frames > 1:
        raise ValueError(f"it is an animation, or has several pages: {frames} images; expected one")
    if image.mode.startswith("I;16"):  # Pillow's own conversion cuts off at 255
        numbers = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((numbers + 128) // 257).astype(np.uint8))
    if image.mode[0] in "IF":
        raise ValueError(f"mode {image.mode} has more than 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def plain(image: Image.Image, channels: int) -> Image.Image:
    """Returns an image of 8 bits as grey (one channel) or RGB.

    Raises:
        ValueError: as of :func:`eight_bit`.
    """
    found, mode = eight_bit(image), "L" if channels == 1 else "RGB"
    return found if found.mode == mode else found.convert(mode)


def reduction(part: tuple[int, int], target: tuple[int, int]) -> int:
    """Returns how many times smaller a JPEG may be decoded, 1, 2, 4 or 8.

    The part that is wanted stays at least twice as large as it will be, so that scaling still averages over pixels.

    Args:
        part: (height, width) of the part of the image that is wanted.
        target: (height, width) to which it will be scaled.
    """
    most = min(part[0] // (2 * target[0]), part[1] // (2 * target[1]))
    return next((times for times in (8, 4, 2) if times <= most), 1)


def draft(image: Image.Image, times: int) -> int:
    """Lets an opened JPEG be decoded ``times`` smaller; returns how much smaller it will be, 1 for other formats."""
    width, height = image.size
    if times > 1:
        image.draft(None, (width // times, height // times))
    return times if image.size != (width, height) else 1


def fitted(image: Image.Image, shape: tuple[int, ...], short: int | None = None) -> np.ndarray:
    """Returns an image scaled and cropped to ``shape`` (C, H, W), as [H, W, C] uint8, grey if C is 1 and else RGB.

    A JPEG of at least four times the size is decoded smaller (:func:`reduction`).

    Args:
        image: not decoded yet.
        shape: (C, H, W).
        short: length that the short side is scaled to before H × W pixels are taken of the centre, as torchvision's
            ``Resize(short)`` and ``CenterCrop((H, W))`` do; None: as short as it can be.

    Raises:
        ValueError: as of :func:`eight_bit`.
    """
    channels, height, width = shape
    whole_width, whole_height = image.size
    part = _covered(image.size, height, width) if short is None else _centre(image.size, height, width, short)
    own = (whole_height, whole_width) if short is None else (int(part[3] - part[1]), int(part[2] - part[0]))
    times = draft(image, reduction(own, (height, width)))
    box = (part[0] / times, part[1] / times, part[2] / times, part[3] / times)
    scaled = plain(image, channels).resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(scaled).reshape(height, width, -1)


def _covered(size: tuple[int, int], height: int, width: int) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of the largest part at the centre of the shape height × width."""
    whole_width, whole_height = size
    part_width, part_height = (
        min(whole_width, width / height * whole_height),
        min(whole_height, whole_width / (width / height)),
    )
    left, top = (whole_width - part_width) * 0.5, (whole_height - part_height) * 0.5
    return left, top, left + part_width, top + part_height


def _centre(size: tuple[int, int], height: int, width: int, short: int) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of what becomes height × width where the short side becomes ``short``."""
    across, down = (short * one // min(size) for one in size)  # of the whole image, scaled
    left, top = round((across - width) / 2), round((down - height) / 2)
    return (
        left * size[0] / across, top * size[1] / down, (left + width) * size[0] / across,
        (top + height) * size[1] / down,
    )  # fmt: skip
