"""The common part of methods that match a small convolutional network's view of few images and of many."""

import torch
from torch import Tensor

from tutelage import seeding
from tutelage.condense.images import Condensed, TrainingSet, check_counts, check_per_class
from tutelage.data.augment import Step
from tutelage.errors import TutelageError
from tutelage.models.convnet import ConvNet


class Matching:
    """Images that learn by SGD, from real ones on; networks are :class:`~tutelage.models.convnet.ConvNet`.

    Nothing is regressed from them: their figure is that of a network trained on them.

    Args:
        per_class: images of each class.
        steps: of the method.
        lr: of the images.
        momentum: of the images.
        width: channels of a convolution; published: 128.
        depth: number of blocks; published: 3.
        padding: of the first convolution; published for images of one channel: 3.
        augment: what happens to images before a network sees them
            (:class:`~tutelage.data.differentiable.Differentiable`); None: nothing.
        save_every: steps between two states from which it goes on after a kill.

    Raises:
        TutelageError: an argument is out of range.
    """

    def __init__(
        self,
        per_class: int,
        steps: int,
        lr: float,
        momentum: float,
        width: int,
        depth: int,
        padding: int,
        augment: Step | None,
        save_every: int,
    ):
        check_counts(steps=steps, width=width, depth=depth, padding=padding, save_every=save_every)
        if not lr > 0 or not 0 <= momentum < 1:
            raise TutelageError(
                f"condense.lr must be above 0 and condense.momentum in [0, 1); found {lr} and {momentum}"
            )
        if augment is not None and not isinstance(augment, Step):
            raise TutelageError(
                f"condense.augment: {type(augment).__name__} is not a tutelage.data.augment.Step, such as "
                "tutelage.data.differentiable.Differentiable"
            )
        self.per_class, self.steps, self.lr, self.momentum = per_class, steps, float(lr), float(momentum)
        self.width, self.depth, self.padding, self.augment = width, depth, padding, augment
        self.save_every = save_every

    def start(self, train: TrainingSet, seed: int) -> Condensed:
        """Returns real images, drawn with ``seed``, as many of each class.

        Raises:
            TutelageError: there are not as many, or an image is too small for ``depth`` poolings.
        """
        check_per_class(self.per_class, train)
        if min(train.images.shape[-2:]) + 2 * (self.padding - 1) < 2**self.depth:
            raise TutelageError(
                f"condense.depth={self.depth}: images of {list(train.images.shape[-2:])} can't be halved as often"
            )
        rows = train.balanced(self.per_class, seed, "condense", "start")
        return Condensed(train.images[rows], train.targets(rows))

    def accuracy(self, found: Condensed, test: TrainingSet) -> float:
        """Returns NaN: nothing is regressed from the images."""
        return float("nan")

    def network(self, train: TrainingSet, *chance: int | str) -> ConvNet:
        """Returns an untrained network, its weights a function of ``chance``."""
        return drawn(train, self.width, self.depth, self.padding, *chance)

    def alike(self, images: Tensor, labels: Tensor, *chance: int | str) -> Tensor:
        """Returns augmented images; what happens to one is a function of its class and ``chance``: the Siamese part."""
        return augmented(self.augment, images, labels, *chance)

    def apart(self, images: Tensor, *chance: int | str) -> Tensor:
        """Returns augmented images, each by itself."""
        return augmented(self.augment, images, torch.arange(len(images)), *chance)


def augmented(augment: Step | None, images: Tensor, keys: Tensor, *chance: int | str) -> Tensor:
    """Returns augmented images; what happens to one is a function of its key and ``chance``."""
    if augment is None:
        return images
    return augment(images, seeding.uniform(seeding.derive_seed(*chance), keys, augment.draws))


def drawn(train: TrainingSet, width: int, depth: int, padding: int, *chance: int | str) -> ConvNet:
    """Returns an untrained network for the images of a set, its weights a function of ``chance``."""
    with seeding.seeded(*chance):
        return ConvNet(train.images.shape[1:], train.classes, width, depth, padding)


def batches(count: int, size: int, *chance: int | str) -> list[Tensor]:
    """Returns the rows of each batch of an epoch over ``count`` examples, in an order that ``chance`` determines."""
    return list(torch.randperm(count, generator=seeding.generator(*chance)).split(size))
