"""ShuffleNet, Zhang et al. 2018, "An extremely efficient convolutional neural network" (arXiv:1707.01083)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.blocks import (
    chain,
    check_positive,
    check_stages,
    conv1x1,
    conv3x3,
    global_average,
    normalised,
    stage_of_blocks,
)

_STEM = 24


class ShuffleUnit(nn.Module):
    """Grouped 1×1, channel shuffle, 3×3 depthwise, grouped 1×1; x is added, or at stride 2 its average is appended.

    The result is before the ReLU.

    Args:
        inputs: channels of x.
        outputs: channels of the result.
        stride: 1 (needs as many outputs as inputs) or 2.
        groups: groups of the 1×1 convolutions; the first one after the narrow stem is ungrouped.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int):
        super().__init__()
        grown = outputs - inputs if stride == 2 else outputs
        inner, first = grown // 4, 1 if inputs == _STEM else groups
        self.residual = nn.Sequential(
            *normalised(conv1x1(inputs, inner, groups=first)),
            nn.ReLU(),
            nn.ChannelShuffle(first),
            *normalised(conv3x3(inner, inner, stride, groups=inner)),
            nn.ReLU(),
            *normalised(conv1x1(inner, grown, groups=groups)),
        )
        self.average = nn.AvgPool2d(3, 2, padding=1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, outputs, H / stride, W / stride]."""
        if self.average is None:
            return x + self.residual(x)
        return torch.cat([self.residual(x), self.average(x)], dim=1)


class ShuffleNetV1(nn.Sequential):
    """ShuffleNet as in the published CIFAR-100 table (Tian et al. 2020, arXiv:1910.10699).

    It differs from the original: a 1×1 stem that keeps the image's size, no max pooling, a ReLU after the depthwise
    convolution. Weights have torch's default initialisation.

    Args:
        in_channels: channels of the image.
        num_classes: number of logits.
        groups: groups of the 1×1 convolutions.
        widths: channels of each stage.
        blocks: units of each stage; the first one halves the image.

    Raises:
        TutelageError: a size is not positive, the lists differ in length, or widths do not fit the groups.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        groups: int = 3,
        widths: Sequence[int] = (240, 480, 960),
        blocks: Sequence[int] = (4, 8, 4),
    ):
        check_positive("ShuffleNetV1", in_channels=in_channels, num_classes=num_classes, groups=groups)
        check_stages("ShuffleNetV1", widths, blocks)
        stages, inputs = {}, _STEM
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            if width <= inputs or width % (4 * groups) or (width - inputs) % (4 * groups):
                raise TutelageError(
                    f"ShuffleNetV1: the width of stage {number}, and what it adds to the {inputs} channels before it, "
                    f"must be multiples of 4 · {groups} groups; found {width}"
                )
            first = ShuffleUnit(inputs, width, stride=2, groups=groups)
            others = [ShuffleUnit(width, width, stride=1, groups=groups) for _ in range(count - 1)]
            stages[f"stage{number}"] = stage_of_blocks([first, *others])
            inputs = width
        super().__init__(
            chain(
                stem=nn.Sequential(*normalised(conv1x1(in_channels, _STEM)), nn.ReLU()),
                **stages,
                embedding=global_average(),
                classifier=nn.Linear(inputs, num_classes),
            )
        )
