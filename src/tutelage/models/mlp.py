"""Multilayer perceptrons."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from tutelage.models.blocks import chain, check_positive


class MLP(nn.Sequential):
    """Flatten, then Linear-ReLU per hidden layer with dropout before every Linear, then a linear classifier.

    ``hidden.i`` is the activation of hidden layer i, after its ReLU and before dropout; ``hidden`` itself gives the
    last one, the vector that enters the classifier, whatever the depth. Weights are torch's uniform draw.

    Args:
        input_shape: the shape of one example, such as [1, 28, 28].
        widths: units per hidden layer; none makes it a linear classifier.
        num_classes: number of logits.
        dropout: chance that a hidden unit is dropped.
        input_dropout: chance that an input is dropped.

    Raises:
        TutelageError: a size is not positive.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        widths: Sequence[int],
        num_classes: int,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ):
        check_positive("MLP", input_shape=input_shape, widths=widths, num_classes=num_classes)
        sizes = [prod(input_shape), *widths]
        rates = [input_dropout] + [dropout] * len(widths)
        hidden = [
            nn.Sequential(nn.Dropout(rate), nn.Linear(inputs, outputs), nn.ReLU())
            for rate, (inputs, outputs) in zip(rates[:-1], pairwise(sizes), strict=True)
        ]
        super().__init__(
            chain(
                flatten=nn.Flatten(),
                hidden=nn.Sequential(*hidden),
                dropout=nn.Dropout(rates[-1]),
                classifier=nn.Linear(sizes[-1], num_classes),
            )
        )
