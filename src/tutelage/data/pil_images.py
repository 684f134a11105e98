"""PIL images of any mode as plain pictures."""

import numpy as np
from PIL import Image, ImageOps


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


def fitted(image: Image.Image, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an image scaled and cropped to ``shape`` (C, H, W), as [H, W, C] uint8, grey if C is 1 and else RGB.

    Raises:
        ValueError: as of :func:`eight_bit`.
    """
    channels, height, width = shape
    plain = eight_bit(image).convert("L" if channels == 1 else "RGB")
    return np.asarray(ImageOps.fit(plain, (width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)
