"""MobileNetV2, Sandler et al. 2018, "Inverted residuals and linear bottlenecks" (arXiv:1801.04381)."""

from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.blocks import (
    chain,
    check_positive,
    conv1x1,
    conv3x3,
    draw_classifier,
    draw_convolutions,
    global_average,
    normalised,
)

# rows of a stage: (whether blocks expand, channels at width 1, blocks, stride of the first);
# a stage starts where the image shrinks
_STAGES = (
    ((False, 16, 1, 1), (True, 24, 2, 1)),
    ((True, 32, 3, 2),),
    ((True, 64, 4, 2), (True, 96, 3, 1)),
    ((True, 160, 3, 2), (True, 320, 1, 1)),
)
_HEAD = 1280  # not scaled by width


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, 1×1 linear projection; x is added where its shape is kept.

    Args:
        inputs: channels of x.
        outputs: channels of the result.
        stride: stride of the depthwise convolution.
        expansion: inner channels per input channel.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.residual = nn.Sequential(
            *normalised(conv1x1(inputs, inner)),
            nn.ReLU(),
            *normalised(conv3x3(inner, inner, stride, groups=inner)),
            nn.ReLU(),
            *normalised(conv1x1(inner, outputs)),
        )
        self.keeps_shape = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, outputs, H / stride, W / stride]."""
        return x + self.residual(x) if self.keeps_shape else self.residual(x)


class MobileNetV2(nn.Sequential):
    """MobileNetV2 as in the published CIFAR-100 table (Tian et al. 2020, arXiv:1910.10699).

    It differs from the original: the second row keeps the image's size, ReLU replaces ReLU6, the first block has a
    1×1 convolution too, and there is no dropout. A stage ends in a linear bottleneck, so its output is also its
    pre-activation. Convolutions are initialised with fan-out, the classifier from N(0, 0.01²).

    Args:
        in_channels: channels of the image.
        num_classes: number of logits.
        width: factor of all channels except the last 1280; 0.5 is the published student.
        expansion: inner channels per input channel of every block after the first.

    Raises:
        TutelageError: a size is not positive, or ``width`` leaves no channel in the first block or exceeds 1.
    """

    def __init__(self, in_channels: int, num_classes: int, width: float = 0.5, expansion: int = 6):
        check_positive("MobileNetV2", in_channels=in_channels, num_classes=num_classes, expansion=expansion)
        if not 1 / 16 <= width <= 1:
            raise TutelageError(f"MobileNetV2: width must be from 1/16 to 1; found {width}")
        inputs = stem = int(32 * width)
        stages = {}
        for number, rows in enumerate(_STAGES, start=1):
            layers = []
            for expands, channels, count, stride in rows:
                outputs = int(channels * width)
                for index in range(count):
                    factor = expansion if expands else 1
                    layers.append(InvertedResidual(inputs, outputs, stride if index == 0 else 1, factor))
                    inputs = outputs
            stages[f"stage{number}"] = nn.Sequential(*layers)
        classifier = nn.Linear(_HEAD, num_classes)
        super().__init__(
            chain(
                stem=nn.Sequential(*normalised(conv3x3(in_channels, stem, stride=2)), nn.ReLU()),
                **stages,
                head=nn.Sequential(*normalised(conv1x1(inputs, _HEAD)), nn.ReLU()),
                embedding=global_average(),
                classifier=classifier,
            )
        )
        draw_convolutions(self)
        draw_classifier(classifier)
