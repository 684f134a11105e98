"""Distribution matching: images whose embeddings by random networks have the mean of the real ones'."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.condense.images import Condensed, TrainingSet, check_counts, optimised
from tutelage.condense.matching import Matching
from tutelage.data.augment import Step


class DistributionMatching(Matching):
    """Distribution matching: the mean embedding of each class's images is that of its real images.

    Minimises ``Σ_c ‖mean_i ψ(x_ci) − mean_j ψ(s_cj)‖²`` over the images s by SGD; ψ is another network without training
    in each step, up to its flattened last pooling. With ``augment``, what happens to the real and to the learned images
    of a class in a step is the same.

    Args:
        per_class: images of each class.
        steps: of SGD; published: 20,000.
        lr: of the images; published: 1.
        momentum: published: 0.5.
        batch: real images of each class in a step; published: 256.
        width: channels of a convolution; published: 128.
        depth: number of blocks; published: 3.
        padding: of the first convolution; published for images of one channel: 3.
        augment: published: :class:`~tutelage.data.differentiable.Differentiable`; None: nothing.
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
        padding: int = 1,
        augment: Step | None = None,
        save_every: int = 25,
    ):
        super().__init__(per_class, steps, lr, momentum, width, depth, padding, augment, save_every)
        check_counts(batch=batch)
        self.batch = batch

    def condense(self, train: TrainingSet, seed: int, folder: Path) -> Condensed:
        """Returns the learned images, with the labels that they started with."""
        first = self.start(train, seed)
        images, labels = first.images.clone().requires_grad_(), first.targets.argmax(1)

        def loss(step: int) -> Tensor:
            net = self.network(train, seed, "condense", "network", step).requires_grad_(False)
            rows = train.balanced(self.batch, seed, "condense", step)
            chance = (seed, "condense", "augment", step)
            real = self.alike(train.images[rows], train.labels[rows], *chance)
            made = self.alike(images, labels, *chance)
            counts = train.labels[rows].bincount(minlength=train.classes).tolist()
            embed = nn.Sequential(*list(net.children())[:-1])  # all but the classifier
            return mismatch(embed, real, counts, made, [self.per_class] * train.classes)

        optimizer = torch.optim.SGD([images], lr=self.lr, momentum=self.momentum)
        optimised([images], optimizer, self.steps, loss, folder, self.save_every)
        return Condensed(images.detach(), first.targets)


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
