"""Shared parts of the model families: stages, heads, initialisation, checks of arguments.

Every network of this package is an ``nn.Sequential`` with named parts, so that tap paths are names of its layers:
``stage1`` …, ``embedding`` (the input of the classifier), ``classifier`` (the last Linear). No ReLU is
in-place, as it would overwrite the output that a tap has captured.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from tutelage.errors import TutelageError

# Layers whose weights are [units or output channels, …].
WITH_UNITS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def chain(**parts: nn.Module) -> "OrderedDict[str, nn.Module]":
    """Returns named parts in order, as ``nn.Sequential`` takes them."""
    return OrderedDict(parts)


def stage(*layers: nn.Module) -> nn.Sequential:
    """Returns ``layers`` as ``preact``, then ``relu``, so that taps can read before or after the last ReLU."""
    return nn.Sequential(chain(preact=nn.Sequential(*layers), relu=nn.ReLU()))


def stage_of_blocks(blocks: Sequence[nn.Module]) -> nn.Sequential:
    """Returns a :func:`stage` of blocks without a final ReLU, adding one after each of them."""
    layers = [layer for block in blocks for layer in (block, nn.ReLU())]
    return stage(*layers[:-1])


def conv3x3(inputs: int, outputs: int, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """Returns a 3×3 convolution that keeps the size, or divides it by ``stride``."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, groups=groups, bias=bias)


def conv1x1(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Returns a 1×1 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 1, stride, groups=groups, bias=False)


def normalised(conv: nn.Conv2d) -> list[nn.Module]:
    """Returns ``conv`` and its batch normalisation."""
    return [conv, nn.BatchNorm2d(conv.out_channels)]


def global_average() -> nn.Sequential:
    """Returns a module that averages [B, C, H, W] to [B, C]."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def draw_convolutions(net: nn.Module) -> None:
    """Draws every convolution from N(0, 2 / (k² · outputs)) and zeroes its bias (He et al. 2015, arXiv:1502.01852).

    Normalisation keeps torch's scale 1 and shift 0.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def draw_classifier(classifier: nn.Linear) -> None:
    """Draws the weights from N(0, 0.01²) and zeroes the bias, as VGG and MobileNetV2 do."""
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)


def check_positive(name: str, **sizes: int | Sequence[int]) -> None:
    """Checks that every size, or every one of a list of sizes, is at least 1.

    Raises:
        TutelageError: names the network, the argument and what was found.
    """
    for argument, found in sizes.items():
        if min([found] if isinstance(found, int) else found, default=1) < 1:
            raise TutelageError(f"{name}: {argument} must be positive; found {found}")


def check_stages(name: str, widths: Sequence[int], counts: Sequence[int]) -> None:
    """Checks that there is one positive width and one positive count for every stage, and at least one stage.

    Raises:
        TutelageError: names the network and shows both lists.
    """
    if not widths or len(widths) != len(counts) or min(*widths, *counts) < 1:
        raise TutelageError(
            f"{name}: one positive width and one positive number of blocks per stage are expected; "
            f"found widths {list(widths)} and {list(counts)} blocks"
        )


def image_size(name: str, input_shape: Sequence[int], least: int) -> tuple[int, int, int]:
    """Returns ``input_shape`` as (channels, height, width), checked.

    Raises:
        TutelageError: it is not three positive integers, or a side is smaller than ``least``.
    """
    if len(input_shape) != 3 or min(input_shape) < 1 or min(input_shape[1:]) < least:
        raise TutelageError(
            f"{name}: input_shape must be [channels, height, width] with sides of at least {least}; "
            f"found {list(input_shape)}{', which model=mlp takes' if len(input_shape) == 1 else ''}"
        )
    channels, height, width = input_shape
    return channels, height, width
