"""A small convolutional network for 28×28 images."""

from collections.abc import Sequence

from torch import nn

from tutelage.models.blocks import chain, check_positive, conv3x3, image_size, stage


class CNN(nn.Sequential):
    """Two 3×3 convolutions, each with ReLU and 2×2 max pooling, a hidden layer, classifier.

    26,698 parameters at 1×28×28 and 10 classes with the default widths, those of the talk "Knowledge Distillation
    Doesn't Really Work". It gives no rate for its dropout layer: 0.2 is our choice, as is torch's uniform
    initialisation. Pooling is at the start of the next part, so ``stage1`` is unpooled.

    Args:
        input_shape: [channels, height, width], sides of at least 4.
        num_classes: number of logits.
        widths: channels of the two convolutions.
        hidden: units of the hidden layer.
        dropout: probability that a hidden unit is dropped.

    Raises:
        TutelageError: ``input_shape`` is not an image of that size, or there is no class.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        widths: tuple[int, int] = (8, 16),
        hidden: int = 32,
        dropout: float = 0.2,
    ):
        channels, height, width = image_size("CNN", input_shape, least=4)
        first, second = widths
        check_positive("CNN", num_classes=num_classes, first_width=first, second_width=second, hidden=hidden)
        super().__init__(
            chain(
                stage1=stage(conv3x3(channels, first, bias=True)),
                stage2=stage(nn.MaxPool2d(2), conv3x3(first, second, bias=True)),
                embedding=nn.Sequential(
                    nn.MaxPool2d(2), nn.Flatten(), nn.Linear(second * (height // 4) * (width // 4), hidden), nn.ReLU()
                ),
                dropout=nn.Dropout(dropout),
                classifier=nn.Linear(hidden, num_classes),
            )
        )
