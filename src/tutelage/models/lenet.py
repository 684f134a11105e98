"""LeNet-5, LeCun et al. 1998, "Gradient-based learning applied to document recognition"."""

from collections.abc import Sequence

from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.blocks import chain, check_positive, image_size, normalised, stage


class LeNet5(nn.Sequential):
    """LeNet-5 as data-free distillation uses it: ReLU, max pooling, C3 fully connected to S2, a linear output layer.

    The original has scaled tanh, trainable subsampling, a sparse C3 and Gaussian outputs. C1 pads by 2, which makes an
    image of 28×28 the original's 32×32. With widths (6, 16, 120, 84) it has 61,706 parameters at 1×28×28 and 10
    classes; with (3, 8, 60, 42), the LeNet-5-half of Chen et al. 2019 (arXiv:1904.01186), 15,738. Weights are torch's
    uniform draw. Pooling opens the next part, so ``stage1`` is unpooled.

    Args:
        input_shape: [channels, height, width], sides of at least 12.
        num_classes: number of logits.
        widths: channels of C1 and C3, units of C5 and F6.
        norm: whether batch normalisation follows C1 and C3, whose statistics data-free methods read; LeNet-5 has none.

    Raises:
        TutelageError: ``input_shape`` is not an image of that size, a size is not positive, or there are not 4 widths.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        widths: Sequence[int] = (6, 16, 120, 84),
        norm: bool = False,
    ):
        channels, height, width = image_size("LeNet5", input_shape, least=12)
        check_positive("LeNet5", num_classes=num_classes, widths=widths)
        if len(widths) != 4:
            raise TutelageError(f"LeNet5: widths are those of C1, C3, C5 and F6; found {list(widths)}")
        c1, c3, c5, f6 = widths
        flat = c3 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
        first, second = nn.Conv2d(channels, c1, 5, padding=2), nn.Conv2d(c1, c3, 5)
        hidden = [nn.Linear(flat, c5), nn.ReLU(), nn.Linear(c5, f6), nn.ReLU()]
        super().__init__(
            chain(
                stage1=stage(*(normalised(first) if norm else [first])),
                stage2=stage(nn.MaxPool2d(2), *(normalised(second) if norm else [second])),
                embedding=nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), *hidden),
                classifier=nn.Linear(f6, num_classes),
            )
        )
