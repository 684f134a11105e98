"""Distribution matching: images whose embeddings by random networks have the mean of the real ones'."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage import seeding
from tutelage.condense.images import Condensed, TrainingSet, check_per_class, optimised
from tutelage.errors import TutelageError


class DistributionMatching:
    """Distribution matching: the mean embedding of each class's images is that of its real images.

    Minimises ``Σ_c ‖mean_i ψ(x_ci) − mean_j ψ(s_cj)‖²`` over the images s by SGD; ψ is another network without training
    in each step: blocks of 3×3 convolution, instance normalisation, ReLU and 2×2 average pooling, flattened. It starts
    at real images. Nothing is regressed from them: their figure is that of a network trained on them.

    Args:
        per_class: images of each class.
        steps: of SGD; published: 20,000.
        lr: of the images; published: 1.
        momentum: published: 0.5.
        batch: real images of each class in a step; published: 256.
        width: channels of a convolution; published: 128.
        depth: number of blocks; published: 3.
        save_every: steps between two states from which it goes on after a kill.

    Raises:
        TutelageError: an argument is out of range.

    Zhao & Bilen, "Dataset Condensation with Distribution Matching", 2023, arXiv:2110.04181.
    """

    def __init__(
        self,
        per_class: int = 10,
        steps: int = 1000,
        lr: float = 1.0,
        momentum: float = 0.5,
        batch: int = 256,
        width: int = 32,
        depth: int = 3,
        save_every: int = 25,
    ):
        counts = {"steps": steps, "batch": batch, "width": width, "depth": depth, "save_every": save_every}
        for key, count in counts.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise TutelageError(f"condense.{key} must be a whole number of at least 1; found {count!r}")
        if not lr > 0 or not 0 <= momentum < 1:
            raise TutelageError(
                f"condense.lr must be above 0 and condense.momentum in [0, 1); found {lr} and {momentum}"
            )
        self.per_class, self.steps, self.lr, self.momentum = per_class, steps, float(lr), float(momentum)
        self.batch, self.width, self.depth, self.save_every = batch, width, depth, save_every

    def start(self, train: TrainingSet, seed: int) -> Condensed:
        """Returns real images, drawn with ``seed``, as many of each class.

        Raises:
            TutelageError: there are not as many, or an image is too small for ``depth`` poolings.
        """
        check_per_class(self.per_class, train)
        if min(train.images.shape[-2:]) < 2**self.depth:
            raise TutelageError(
                f"condense.depth={self.depth}: images of {list(train.images.shape[-2:])} can't be halved as often"
            )
        rows = train.balanced(self.per_class, seed, "condense", "start")
        return Condensed(train.images[rows], train.targets(rows))

    def condense(self, train: TrainingSet, seed: int, folder: Path) -> Condensed:
        """Returns the learned images, with the labels that they started with."""
        first = self.start(train, seed)
        images = first.images.clone().requires_grad_()

        def loss(step: int) -> Tensor:
            net = random_network(images.shape[1], self.width, self.depth, seed, "condense", "network", step)
            rows = train.balanced(self.batch, seed, "condense", step)
            counts = train.labels[rows].bincount(minlength=train.classes).tolist()
            return mismatch(net, train.images[rows], counts, images, [self.per_class] * train.classes)

        optimizer = torch.optim.SGD([images], lr=self.lr, momentum=self.momentum)
        optimised([images], optimizer, self.steps, loss, folder, self.save_every)
        return Condensed(images.detach(), first.targets)

    def accuracy(self, found: Condensed, test: TrainingSet) -> float:
        """Returns NaN: nothing is regressed from the images."""
        return float("nan")


def random_network(channels: int, width: int, depth: int, *chance: int | str) -> nn.Module:
    """Returns an untrained network that embeds images, its weights a function of ``chance`` and without gradients."""
    with seeding.seeded(*chance):
        blocks = [
            layer
            for i in range(depth)
            for layer in (
                nn.Conv2d(width if i else channels, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU(),
                nn.AvgPool2d(2),
            )
        ]  # fmt: skip
    return nn.Sequential(*blocks, nn.Flatten()).requires_grad_(False)


def mismatch(
    net: nn.Module, real: Tensor, real_counts: Sequence[int], made: Tensor, made_counts: Sequence[int]
) -> Tensor:
    """Returns the squared distances of the classes' mean embeddings, summed over classes; a scalar.

    Args:
        net: embeds images, [N, C, H, W] → [N, D].
        real: real images, class by class.
        real_counts: how many are of each class.
        made: the images that learn, class by class.
        made_counts: how many are of each class.
    """
    with torch.no_grad():
        expected = [part.mean(0) for part in net(real).split(list(real_counts))]
    found = [part.mean(0) for part in net(made).split(list(made_counts))]
    return (torch.stack(found) - torch.stack(expected)).square().sum()
