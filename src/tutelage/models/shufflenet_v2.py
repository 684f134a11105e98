"""ShuffleNetV2, Ma et al. 2018, "Practical guidelines for efficient CNN architecture design" (arXiv:1807.11164)."""

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


def _right(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Returns 1×1, 3×3 depthwise and 1×1 convolutions, without the last ReLU."""
    return nn.Sequential(
        *normalised(conv1x1(inputs, outputs)),
        nn.ReLU(),
        *normalised(conv3x3(outputs, outputs, stride, groups=outputs)),
        *normalised(conv1x1(outputs, outputs)),
    )


class SplitUnit(nn.Module):
    """Passes the first half of the channels through, convolves the second, concatenates and shuffles both.

    The result is before the ReLU, which does not change the first half, as it is never negative.

    Args:
        channels: channels of input and result.

    Shape:
        [B, channels, H, W] → the same.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.right, self.shuffle = _right(channels // 2, channels // 2, stride=1), nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, C, H, W]."""
        left, right = x.chunk(2, dim=1)
        return self.shuffle(torch.cat([left, self.right(right)], dim=1))


class DownUnit(nn.Module):
    """Two convolved halves of half the size, concatenated and shuffled, before the ReLU.

    Args:
        inputs: channels of the input.
        outputs: channels of the result.

    Shape:
        [B, inputs, H, W] → [B, outputs, H / 2, W / 2].
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        half = outputs // 2
        self.left = nn.Sequential(
            *normalised(conv3x3(inputs, inputs, stride=2, groups=inputs)), *normalised(conv1x1(inputs, half))
        )
        self.right, self.shuffle = _right(inputs, half, stride=2), nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, outputs, H / 2, W / 2]."""
        return self.shuffle(torch.cat([self.left(x), self.right(x)], dim=1))


class ShuffleNetV2(nn.Sequential):
    """ShuffleNetV2 as in the published CIFAR-100 table (Tian et al. 2020, arXiv:1910.10699).

    It differs from the original: a 1×1 stem that keeps the image's size, and no max pooling. Weights have torch's
    default initialisation.

    Args:
        in_channels: channels of the image.
        num_classes: number of logits.
        widths: channels of each stage, even; the default is the size ×1.
        blocks: units of each stage; the first one halves the image.
        head: channels of the last 1×1 convolution.

    Raises:
        TutelageError: a size is not positive, a width is odd, or the lists differ in length.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int] = (116, 232, 464),
        blocks: Sequence[int] = (4, 8, 4),
        head: int = 1024,
    ):
        check_positive("ShuffleNetV2", in_channels=in_channels, num_classes=num_classes, head=head)
        check_stages("ShuffleNetV2", widths, blocks)
        if any(width % 2 for width in widths):
            raise TutelageError(f"ShuffleNetV2: widths must be even; found {list(widths)}")
        stages, inputs = {}, _STEM
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            units = [DownUnit(inputs, width), *(SplitUnit(width) for _ in range(count - 1))]
            stages[f"stage{number}"] = stage_of_blocks(units)
            inputs = width
        super().__init__(
            chain(
                stem=nn.Sequential(*normalised(conv1x1(in_channels, _STEM)), nn.ReLU()),
                **stages,
                head=nn.Sequential(*normalised(conv1x1(inputs, head)), nn.ReLU()),
                embedding=global_average(),
                classifier=nn.Linear(head, num_classes),
            )
        )
