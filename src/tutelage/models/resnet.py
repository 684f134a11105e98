"""Residual networks for small images, He et al. 2016, "Deep residual learning" (arXiv:1512.03385), section 4.2."""

from collections.abc import Sequence

from torch import Tensor, nn

from tutelage.models.blocks import (
    chain,
    check_positive,
    check_stages,
    conv1x1,
    conv3x3,
    draw_convolutions,
    global_average,
    normalised,
    stage_of_blocks,
)


class Residual(nn.Module):
    """shortcut(x) + residual(x), before the ReLU. A shortcut that changes the shape is a normalised 1×1 convolution.

    Args:
        inputs: channels of x.
        width: channels inside; outside they are ``width``, or 4·``width`` of a bottleneck.
        stride: stride of the first 3×3 convolution.
        bottleneck: 1×1, 3×3, 1×1 convolutions instead of two 3×3.
    """

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            convs = [conv1x1(inputs, width), conv3x3(width, width, stride), conv1x1(width, outputs)]
        else:
            convs = [conv3x3(inputs, width, stride), conv3x3(width, width)]
        layers = [layer for conv in convs for layer in (*normalised(conv), nn.ReLU())]
        self.residual = nn.Sequential(*layers[:-1])
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*normalised(conv1x1(inputs, outputs, stride)))

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, outputs, H / stride, W / stride]."""
        return self.shortcut(x) + self.residual(x)


class ResNet(nn.Sequential):
    """A 3×3 stem, stages of residual blocks that halve the image from the second on, average pooling, classifier.

    ResNet-(6n + 2) of CIFAR has n blocks in each of three stages of 16, 32 and 64 channels; "x4" multiplies these by 4
    after a stem of 32. Shortcuts are projections if shapes differ, as in Tian et al. 2020 (arXiv:1910.10699), whose
    table most distillation papers use; the original pads with zeros. Four stages from 64 channels give the CIFAR
    forms of ResNet-18, 34 and, with bottlenecks, 50. Convolutions are initialised with fan-out.

    Args:
        in_channels: channels of the image.
        num_classes: number of logits.
        blocks: number of blocks of each stage.
        widths: channels of each stage; for bottlenecks the inner ones, a quarter of the outer ones.
        stem: channels of the first convolution.
        bottleneck: whether blocks have three convolutions instead of two.

    Raises:
        TutelageError: a size is not positive, or ``blocks`` and ``widths`` differ in length.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        blocks: Sequence[int],
        widths: Sequence[int] = (16, 32, 64),
        stem: int = 16,
        bottleneck: bool = False,
    ):
        check_positive("ResNet", in_channels=in_channels, num_classes=num_classes, stem=stem)
        check_stages("ResNet", widths, blocks)
        stages, inputs = {}, stem
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            row = []
            for index in range(count):
                stride = 2 if index == 0 and number > 1 else 1
                row.append(Residual(inputs, width, stride, bottleneck))
                inputs = 4 * width if bottleneck else width
            stages[f"stage{number}"] = stage_of_blocks(row)
        super().__init__(
            chain(
                stem=nn.Sequential(*normalised(conv3x3(in_channels, stem)), nn.ReLU()),
                **stages,
                embedding=global_average(),
                classifier=nn.Linear(inputs, num_classes),
            )
        )
        draw_convolutions(self)
