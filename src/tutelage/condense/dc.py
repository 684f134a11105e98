"""Gradient matching: images whose loss has the gradients of the real ones'."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.condense.images import Condensed, TrainingSet, check_counts, repeated
from tutelage.condense.matching import Matching, batches
from tutelage.data.augment import Step
from tutelage.errors import TutelageError


class GradientMatching(Matching):
    """Gradient matching (DC): a network's gradients by the images of a class are those by its real images.

    Minimises ``Σ_c D(∇_θ CE(s_c), ∇_θ CE(x_c))`` over the images s by SGD (:func:`distance`). A step draws a network θ;
    ``outer`` times it takes one step of the images, by all classes, and between two of them it trains the network for
    ``inner`` epochs on the images as they are. With ``augment`` it is DSA: what happens to the real and to the learned
    images of a class in a step of the images is the same, and the network trains on images each augmented by itself.
    The graph of one class is in memory at a time.

    Args:
        per_class: images of each class.
        steps: number of networks; published: 1,000.
        outer: steps of the images for a network; None: ``per_class``, as published for 1, 10 and 50.
        inner: epochs of a network on the images between two of them; None: 500 / ``per_class``, as published for 10 and
            50.
        lr: of the images; published: 0.1.
        momentum: of the images; published: 0.5.
        batch: real images of each class in a step of the images; published: 256.
        net_lr: of a network; published: 0.01.
        net_batch: images in a step of a network; published: 256.
        width: channels of a convolution; published: 128.
        depth: number of blocks; published: 3.
        padding: of the first convolution; published for images of one channel: 3.
        augment: None: DC; :class:`~tutelage.data.differentiable.Differentiable`: DSA.
        save_every: steps between two states from which it goes on after a kill.

    Raises:
        TutelageError: an argument is out of range.

    Zhao, Mopuri & Bilen, "Dataset Condensation with Gradient Matching", 2021, arXiv:2006.05929; Zhao & Bilen, "Dataset
    Condensation with Differentiable Siamese Augmentation", 2021, arXiv:2102.08259.
    """

    def __init__(
        self,
        per_class: int = 10,
        steps: int = 100,
        outer: int | None = None,
        inner: int | None = None,
        lr: float = 0.1,
        momentum: float = 0.5,
        batch: int = 64,
        net_lr: float = 0.01,
        net_batch: int = 256,
        width: int = 32,
        depth: int = 3,
        padding: int = 1,
        augment: Step | None = None,
        save_every: int = 1,
    ):
        super().__init__(per_class, steps, lr, momentum, width, depth, padding, augment, save_every)
        check_counts(batch=batch, net_batch=net_batch)
        check_counts(**{key: one for key, one in (("outer", outer), ("inner", inner)) if one is not None})
        if not net_lr > 0:
            raise TutelageError(f"condense.net_lr must be above 0; found {net_lr}")
        self.outer, self.inner, self.batch = outer, inner, batch
        self.net_lr, self.net_batch = float(net_lr), net_batch

    @property
    def loops(self) -> tuple[int, int]:
        """Steps of the images for a network, and epochs of the network between two of them."""
        return self.outer or self.per_class, self.inner or max(1, 500 // self.per_class)

    def condense(self, train: TrainingSet, seed: int, folder: Path) -> Condensed:
        """Returns the learned images, with the labels that they started with."""
        first = self.start(train, seed)
        images, labels = first.images.clone(), first.targets.argmax(1)
        outer, inner = self.loops
        optimizer = torch.optim.SGD([images], lr=self.lr, momentum=self.momentum)

        def step(number: int) -> float:
            chance = (seed, "condense", number)
            net, total = self.network(train, seed, "condense", "network", number), 0.0
            for turn in range(outer):
                rows = train.balanced(self.batch, *chance, turn)
                loss, images.grad = self.matched(net, train, rows, images, labels, *chance, "augment", turn)
                optimizer.step()
                total += loss / outer
                if turn < outer - 1:
                    self.trained(net, images, labels, inner, *chance, "inner", turn)
            return total

        repeated([images], optimizer, self.steps, step, folder, self.save_every)
        return Condensed(images, first.targets)

    def matched(
        self, net: nn.Module, train: TrainingSet, rows: Tensor, images: Tensor, labels: Tensor, *chance: int | str
    ) -> tuple[float, Tensor]:
        """Returns the distance, summed over classes, and its gradient by the images.

        Args:
            net: the network whose gradients are compared.
            train: the training set.
            rows: of its images that are compared.
            images: those that learn, [n, C, H, W].
            labels: their classes.
            *chance: of the augmentation.
        """
        total, gradient = 0.0, torch.zeros_like(images)
        weights = [one for one in net.parameters() if one.ndim > 1]
        for label in range(train.classes):
            own, real = labels == label, rows[train.labels[rows] == label]
            made = images[own].requires_grad_()
            expected, found = (
                torch.autograd.grad(F.cross_entropy(net(self.alike(x, y, *chance)), y), weights, create_graph=x is made)
                for x, y in ((train.images[real], train.labels[real]), (made, labels[own]))
            )
            loss = distance(found, expected)
            [gradient[own]] = torch.autograd.grad(loss, made)
            total += loss.item()
        return total, gradient

    def trained(self, net: nn.Module, images: Tensor, labels: Tensor, epochs: int, *chance: int | str) -> None:
        """Trains a network on the images, which stay as they are."""
        optimizer = torch.optim.SGD(net.parameters(), lr=self.net_lr)
        for epoch in range(epochs):
            seen = self.apart(images, *chance, epoch, "augment")
            for rows in batches(len(images), self.net_batch, *chance, epoch):
                optimizer.zero_grad()
                F.cross_entropy(net(seen[rows]), labels[rows]).backward()
                optimizer.step()


def distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> Tensor:
    """Returns ``Σ_layers Σ_outputs (1 − g·g' / (‖g‖ ‖g'‖ + 1e-6))``, g being the gradient of an output's weights.

    Args:
        found: gradients of weights, [outputs, …] each.
        expected: those to compare with.
    """
    parts = []
    for one, other in zip(found, expected, strict=True):
        one, other = one.flatten(1), other.flatten(1)
        parts.append((1 - (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1) + 1e-6)).sum())
    return torch.stack(parts).sum()
