"""A small U-Net: a class for each pixel."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.blocks import check_positive, conv3x3, draw_convolutions, image_size, normalised, stage


class UNet(nn.Module):
    """An encoder that halves the map between its stages, and a decoder that doubles it again and sees each stage.

    A stage is a 3×3 convolution, batch normalisation and ReLU; the published network has two convolutions, more stages,
    and crops maps instead of padding them. Maps are enlarged by repeating pixels. Pooling is at the start of the next
    stage. Convolutions are drawn as by He et al. 2015.

    Args:
        input_shape: [channels, height, width]; sides that 2 divides once for each stage but the first.
        num_classes: number of logits of a pixel.
        widths: channels of the stages; the decoder has the same.

    Shape:
        [B, C, H, W] → logits [B, H, W, num_classes].

    Raises:
        TutelageError: a side can't be halved that often, or a width or number is below 1.

    Ronneberger, Fischer & Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015,
    arXiv:1505.04597.
    """

    def __init__(self, input_shape: Sequence[int], num_classes: int, widths: Sequence[int] = (16, 32, 64)):
        super().__init__()
        channels, *sides = image_size("UNet", input_shape, least=1)
        check_positive("UNet", num_classes=num_classes, widths=widths, stages=len(widths))
        factor = 2 ** (len(widths) - 1)
        if any(side % factor for side in sides):
            raise TutelageError(f"UNet of {len(widths)} stages needs sides that {factor} divides; found {sides}")
        self.stages = len(widths)
        for number, (inputs, outputs) in enumerate(zip((channels, *widths), widths, strict=False), 1):
            pool = [nn.MaxPool2d(2)] if number > 1 else []
            self.add_module(f"stage{number}", stage(*pool, *normalised(conv3x3(inputs, outputs))))
        for number in range(self.stages - 1, 0, -1):
            below, own = widths[number], widths[number - 1]
            self.add_module(f"decoder{number}", stage(*normalised(conv3x3(below + own, own))))
        self.enlarge = nn.Upsample(scale_factor=2)
        self.classifier = nn.Conv2d(widths[0], num_classes, 1)
        draw_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of each pixel, classes last."""
        maps = []
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"stage{number}")(x)
            maps.append(x)
        for number in range(self.stages - 1, 0, -1):
            x = self.get_submodule(f"decoder{number}")(torch.cat([self.enlarge(x), maps[number - 1]], 1))
        return self.classifier(x).movedim(1, -1)
