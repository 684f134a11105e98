"""Networks that make images of random numbers, for students without data."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.blocks import chain, check_positive, image_size


class Generator(nn.Module):
    """Makes images of random numbers; a subclass computes them in ``forward``: [B, …] → normalised [B, C, H, W]."""

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Returns the random numbers of ``count`` images, from torch's default generator."""
        raise NotImplementedError

    def reset(self) -> None:
        """Draws all weights anew from N(0, 0.02), scales of batch normalisations from N(1, 0.02); biases are 0."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                _draw(module, 0.0)
            elif isinstance(module, nn.BatchNorm2d) and module.affine:
                _draw(module, 1.0)

    def reset_first(self) -> None:
        """Draws the weights of the first layer anew."""
        raise NotImplementedError


class ImageGenerator(Generator):
    """The generator of DAFL, which DFAD and ZSKT take over: one linear layer and three convolutions.

    z → linear → ``width`` maps of a quarter of the side, BatchNorm → twice as large → 3×3 convolution, BatchNorm, leaky
    ReLU of slope 0.2 → twice as large → 3×3 convolution to width/2, BatchNorm, leaky ReLU → 3×3 convolution → the
    images. These end in tanh and BatchNorm without scale and shift (DAFL, DFAD), in BatchNorm with both (ZSKT), or in a
    sigmoid, normalised like data: so they are in the range of what a teacher has seen. Interpolation is nearest.

    Args:
        input_shape: [channels, height, width] of the images, sides that are multiples of 4.
        latents: random numbers of an image, from N(0, 1).
        width: channels of the first maps.
        eps: of the two BatchNorms between convolutions. DAFL's code has 0.8, the second argument of ``BatchNorm2d``.
        last: ``tanh``, ``affine`` or ``sigmoid``: how images end.
        mean: of the data by channel, for ``last=sigmoid``.
        std: likewise.

    Raises:
        TutelageError: the images are not of such a size, a size is not positive, or ``last`` is none of these.

    Chen et al., "Data-Free Learning of Student Networks", 2019, arXiv:1904.01186.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        latents: int = 100,
        width: int = 128,
        eps: float = 0.8,
        last: Literal["tanh", "affine", "sigmoid"] = "tanh",
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ):
        super().__init__()
        channels, height, width_of_image = image_size("ImageGenerator", input_shape, least=4)
        check_positive("ImageGenerator", latents=latents, width=width)
        if height % 4 or width_of_image % 4 or width < 2:
            raise TutelageError(
                "ImageGenerator: sides of an image must be multiples of 4, and width at least 2; found "
                f"{list(input_shape)} and {width}"
            )
        if last not in ("tanh", "affine", "sigmoid"):
            raise TutelageError(f"ImageGenerator: last must be tanh, affine or sigmoid; found {last!r}")
        self.latents, self.last, half = latents, last, width // 2
        self.first = (width, height // 4, width_of_image // 4)
        self.linear = nn.Linear(latents, width * self.first[1] * self.first[2])
        self.maps = nn.Sequential(
            chain(
                norm=nn.BatchNorm2d(width),
                up1=nn.Upsample(scale_factor=2),
                conv1=nn.Conv2d(width, width, 3, padding=1),
                norm1=nn.BatchNorm2d(width, eps),
                relu1=nn.LeakyReLU(0.2),
                up2=nn.Upsample(scale_factor=2),
                conv2=nn.Conv2d(width, half, 3, padding=1),
                norm2=nn.BatchNorm2d(half, eps),
                relu2=nn.LeakyReLU(0.2),
                conv3=nn.Conv2d(half, channels, 3, padding=1),
            )
        )
        self.norm = nn.Identity() if last == "sigmoid" else nn.BatchNorm2d(channels, affine=last == "affine")
        self.register_buffer("shift", torch.tensor([*mean])[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([*std])[:, None, None], persistent=False)

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Returns z [count, latents] ~ N(0, 1)."""
        return torch.randn(count, self.latents, device=device)

    def reset_first(self) -> None:
        """Draws the linear layer and the scales of the BatchNorm after it from N(0, 0.02), as Fast's code does."""
        _draw(self.linear, 0.0)
        _draw(self.maps.get_submodule("norm"), 0.0)

    def forward(self, latent: Tensor) -> Tensor:
        """Returns the images [B, C, H, W] of z [B, latents]."""
        images = self.maps(self.linear(latent).unflatten(1, self.first))
        if self.last == "sigmoid":
            return (images.sigmoid() - self.shift) / self.scale
        return self.norm(images.tanh() if self.last == "tanh" else images)


class Noise(Generator):
    """Images of pure noise, N(0, 1) for every pixel: the control of a generator. Nothing in it learns.

    Args:
        input_shape: [channels, height, width] of the images.
    """

    def __init__(self, input_shape: Sequence[int]):
        super().__init__()
        self.input_shape = image_size("Noise", input_shape, least=1)

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Returns the pixels [count, C, H, W]."""
        return torch.randn(count, *self.input_shape, device=device)

    def forward(self, latent: Tensor) -> Tensor:
        """Returns the pixels [B, C, H, W] as they are."""
        return latent


def _draw(module: nn.Module, mean: float) -> None:
    """Draws a module's weights from N(mean, 0.02) and sets its biases to 0."""
    for name, parameter in module.named_parameters(recurse=False):
        if name == "weight":
            nn.init.normal_(parameter, mean, 0.02)
        else:
            nn.init.zeros_(parameter)
