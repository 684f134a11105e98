"""The convolutional network that few-image methods are developed with (Gidaris & Komodakis 2018, Zhao et al. 2021)."""

from collections.abc import Sequence

from torch import nn

from tutelage.models.blocks import chain, check_positive, conv3x3, image_size, stage


class ConvNet(nn.Sequential):
    """Blocks of 3×3 convolution, instance normalisation, ReLU and 2×2 average pooling, then a linear classifier.

    Normalisation has scale and shift. Weights are drawn as torch draws them. Pooling is at the start of the next part,
    so ``stage1`` is unpooled.

    Args:
        input_shape: [channels, height, width], sides of at least 2 to the power of ``depth``.
        num_classes: number of logits.
        width: channels of every convolution; published: 128.
        depth: number of blocks; published: 3.
        padding: of the first convolution; published: 1, and 3 for images of one channel (28×28 become 32×32).

    Raises:
        TutelageError: ``input_shape`` is not an image of that size, or an argument is below 1.

    Zhao, Mopuri & Bilen, "Dataset Condensation with Gradient Matching", 2021, arXiv:2006.05929.
    """

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, width: int = 128, depth: int = 3, padding: int = 1
    ):
        check_positive("ConvNet", num_classes=num_classes, width=width, depth=depth, padding=padding)
        wider = 2 * (padding - 1)
        channels, height, width_of_image = image_size("ConvNet", input_shape, least=max(1, 2**depth - wider))
        first = nn.Conv2d(channels, width, 3, padding=padding)
        stages = {"stage1": stage(first, nn.GroupNorm(width, width))}
        for number in range(2, depth + 1):
            stages[f"stage{number}"] = stage(
                nn.AvgPool2d(2), conv3x3(width, width, bias=True), nn.GroupNorm(width, width)
            )
        places = ((height + wider) // 2**depth) * ((width_of_image + wider) // 2**depth)
        super().__init__(
            chain(
                **stages,
                embedding=nn.Sequential(nn.AvgPool2d(2), nn.Flatten()),
                classifier=nn.Linear(width * places, num_classes),
            )
        )
