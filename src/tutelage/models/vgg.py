"""VGG with batch normalisation for small images, after Simonyan & Zisserman 2015 (arXiv:1409.1556)."""

from collections.abc import Sequence

from torch import nn

from tutelage.models.blocks import (
    chain,
    check_positive,
    check_stages,
    conv3x3,
    draw_classifier,
    draw_convolutions,
    global_average,
    normalised,
    stage,
)


class VGG(nn.Sequential):
    """Stages of 3×3 conv-BN-ReLU with 2×2 max pooling between them, average pooling, one linear classifier.

    As in the published CIFAR-100 table (Tian et al. 2020, arXiv:1910.10699): five stages, biased convolutions,
    no pooling between the fourth and the fifth (both are 4×4 at 32×32), no hidden linear layers. A stage starts with
    pooling, so its output is unpooled. Convolutions are initialised with fan-out, the classifier from N(0, 0.01²).

    Args:
        in_channels: channels of the image, whose sides are at least 8.
        num_classes: number of logits.
        convolutions: number of convolutions of each stage: [1, 1, 1, 1, 1] is VGG-8, [2, 2, 2, 2, 2] VGG-13.
        widths: channels of each stage.

    Raises:
        TutelageError: a size is not positive, or ``convolutions`` and ``widths`` differ in length.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        convolutions: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512, 512),
    ):
        check_positive("VGG", in_channels=in_channels, num_classes=num_classes)
        check_stages("VGG", widths, convolutions)
        stages, inputs = {}, in_channels
        for number, (count, width) in enumerate(zip(convolutions, widths, strict=True), start=1):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if number in (2, 3, 4) else []
            for _ in range(count):
                layers += [*normalised(conv3x3(inputs, width, bias=True)), nn.ReLU()]
                inputs = width
            stages[f"stage{number}"] = stage(*layers[:-1])
        classifier = nn.Linear(inputs, num_classes)
        super().__init__(chain(**stages, embedding=global_average(), classifier=classifier))
        draw_convolutions(self)
        draw_classifier(classifier)
