"""The small convolutional network of the MNIST grid-search seed."""

from collections.abc import Sequence

from torch import nn

from tutelage.models.blocks import chain, check_positive, conv3x3, image_size, stage


class CNN(nn.Sequential):
    """Two 3×3 convolutions of 8 and 16 channels, each with ReLU and 2×2 max pooling, 32 hidden units, classifier.

    26,698 parameters at 1×28×28 and 10 classes. The seed's slides show a dropout layer without its rate; 0.2 is our
    choice, and so is torch's uniform draw of the weights. Pooling opens the next part, so ``stage1`` is unpooled.

    Args:
        input_shape: [channels, height, width], sides of at least 4.
        num_classes: number of logits.
        dropout: chance that a hidden unit is dropped.

    Raises:
        TutelageError: ``input_shape`` is not an image of that size, or there is no class.
    """

    def __init__(self, input_shape: Sequence[int], num_classes: int, dropout: float = 0.2):
        channels, height, width = image_size("CNN", input_shape, least=4)
        check_positive("CNN", num_classes=num_classes)
        hidden = nn.Linear(16 * (height // 4) * (width // 4), 32)
        super().__init__(
            chain(
                stage1=stage(conv3x3(channels, 8, bias=True)),
                stage2=stage(nn.MaxPool2d(2), conv3x3(8, 16, bias=True)),
                embedding=nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), hidden, nn.ReLU()),
                dropout=nn.Dropout(dropout),
                classifier=nn.Linear(32, num_classes),
            )
        )
