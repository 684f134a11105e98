"""Adapts the loader's images to a network for images of another size or normalisation.

Both networks receive the same batches; the ``adapter`` of :class:`tutelage.models.tapped.Tapped` converts the
images for its network. Combine several by ``torch.nn.Sequential``:
``+teacher.adapter='{_target_: torch.nn.Sequential, _args_: [{…Resize…}, {…Renormalise…}]}'``. A network that is built
for a fixed size needs its own: ``teacher.net.input_shape=[1,16,16]``.

Any other module without a state can be used; its tensors must follow the input's device and dtype (``constant.to(x)``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError, nearest


@dataclass(frozen=True)
class Preprocessing:
    """The images that a library's network was trained on.

    Attributes:
        mean: by channel, of pixels from 0 to 1; empty if they are not normalised.
        std: the same.
        size: [height, width]; empty for any.
        mode: interpolation, of :class:`Resize`.
        colours: whether the network takes that many channels, or adapts to those of the data.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, ...]
    mode: str
    colours: bool = False


class Renormalise(nn.Module):
    """Converts images from one normalisation to another: y = (x·std + mean − to_mean) / to_std.

    Args:
        mean: mean that the input was normalised with, one number per channel.
        std: the same.
        to_mean: mean that the network was trained with.
        to_std: the same.

    Raises:
        TutelageError: the lengths differ, or a standard deviation is not above 0.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], to_mean: Sequence[float], to_std: Sequence[float]):
        super().__init__()
        given = {"mean": list(mean), "std": list(std), "to_mean": list(to_mean), "to_std": list(to_std)}
        if len({len(values) for values in given.values()}) != 1 or not given["mean"]:
            raise TutelageError(f"adapter: expected one number per channel for each of the four, found {given}")
        if min(given["std"] + given["to_std"]) <= 0:
            raise TutelageError(f"adapter: std and to_std must be above 0; found {given}")
        here, deviation, there, wanted = (
            torch.tensor(values, dtype=torch.float64)[:, None, None] for values in given.values()
        )
        self.register_buffer("scale", (deviation / wanted).float(), persistent=False)
        self.register_buffer("shift", ((here - there) / wanted).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the converted images [B, C, H, W]."""
        if x.shape[-3] != len(self.scale):  # one channel would broadcast
            raise TutelageError(f"adapter: statistics of {len(self.scale)} channels for images {list(x.shape)}")
        return torch.addcmul(self.shift.to(x), x, self.scale.to(x))  # `to`, as costs are counted on the meta device


_SMOOTH = ("bilinear", "bicubic")
_MODES = (*_SMOOTH, "nearest", "nearest-exact", "area")


class Repeat(nn.Module):
    """Repeats a grey image for a network of colour images.

    Args:
        channels: of the network's images.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, channels, H, W] of [B, 1, H, W]."""
        return x.expand(-1, self.channels, -1, -1)


class Resize(nn.Module):
    """Resizes images. Bilinear and bicubic interpolation are antialiased, which matters for downscaling.

    Args:
        size: [height, width], or one number for both.
        mode: ``bilinear``, ``bicubic``, ``nearest``, ``nearest-exact`` or ``area``, of ``F.interpolate``.

    Raises:
        TutelageError: another mode, or a size below 1.
    """

    def __init__(self, size: int | Sequence[int], mode: str = "bilinear"):
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.mode = mode
        if len(self.size) != 2 or min(self.size) < 1:
            raise TutelageError(f"adapter: size must be [height, width] of at least 1; found {list(self.size)}")
        if mode not in _MODES:
            raise TutelageError(f"adapter: unknown mode {mode!r}; {nearest(mode, _MODES)}")

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, C, *size], computed in float32, which all modes support on every device."""
        smooth = {"antialias": True, "align_corners": False} if self.mode in _SMOOTH else {}
        return F.interpolate(x.float(), self.size, mode=self.mode, **smooth).to(x.dtype)
