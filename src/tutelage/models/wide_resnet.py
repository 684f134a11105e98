"""Wide residual networks, Zagoruyko & Komodakis 2016 (arXiv:1605.07146)."""

from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.blocks import chain, check_positive, conv1x1, conv3x3, draw_convolutions, global_average


class PreactResidual(nn.Module):
    """BN-ReLU-conv twice, plus a shortcut: x itself, or a 1×1 convolution of the activated x where the shape changes.

    Args:
        inputs: channels of x.
        outputs: channels of the result.
        stride: stride of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1, self.relu1 = nn.BatchNorm2d(inputs), nn.ReLU()
        self.residual = nn.Sequential(
            conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU(), conv3x3(outputs, outputs)
        )
        same = stride == 1 and inputs == outputs
        self.projection = None if same else conv1x1(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, outputs, H / stride, W / stride]."""
        activated = self.relu1(self.bn1(x))
        shortcut = x if self.projection is None else self.projection(activated)
        return shortcut + self.residual(activated)


class WideResNet(nn.Sequential):
    """WRN-depth-k: three stages of (depth - 4) / 6 pre-activation blocks with 16k, 32k and 64k channels.

    The activation of a stage's sum is at the start of the next part: stage 1's is ``stage2.0.relu1``, stage 3's is
    ``relu``; before it, ``stage2.0.bn1`` and ``bn``. Convolutions are initialised by fan-out, the bias with 0.

    Args:
        in_channels: channels of the image.
        num_classes: number of logits.
        depth: 6n + 4.
        width: the factor k.

    Raises:
        TutelageError: ``depth`` is not 6n + 4 with n > 0, or a size is not positive.
    """

    def __init__(self, in_channels: int, num_classes: int, depth: int, width: int):
        check_positive("WideResNet", in_channels=in_channels, num_classes=num_classes, width=width)
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise TutelageError(f"WideResNet: depth must be 6n + 4 (10, 16, 22, 28, 34, 40 …); found {depth}")
        stages, inputs = {}, 16
        for number, outputs in enumerate((16 * width, 32 * width, 64 * width), start=1):
            first = PreactResidual(inputs, outputs, stride=1 if number == 1 else 2)
            others = [PreactResidual(outputs, outputs, stride=1) for _ in range(blocks - 1)]
            stages[f"stage{number}"] = nn.Sequential(first, *others)
            inputs = outputs
        classifier = nn.Linear(inputs, num_classes)
        super().__init__(
            chain(
                stem=conv3x3(in_channels, 16),
                **stages,
                bn=nn.BatchNorm2d(inputs),
                relu=nn.ReLU(),
                embedding=global_average(),
                classifier=classifier,
            )
        )
        draw_convolutions(self)
        nn.init.zeros_(classifier.bias)
