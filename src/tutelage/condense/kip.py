"""Kernel inducing points, label solve, and real images beside them: what a kernel regression learns most from."""

from pathlib import Path

import torch

from tutelage.condense.images import Condensed, TrainingSet, check_counts, check_per_class, optimised
from tutelage.condense.kernels import Kernel, accuracy, regress, weights
from tutelage.errors import TutelageError


class RealImages:
    """Real images, as many of each class: the control of every method at the same number of images.

    Args:
        kernel: of two sets of images (:mod:`tutelage.condense.kernels`), for the accuracy of a kernel regression.
        per_class: images of each class.
        ridge: λ of the regression.

    Raises:
        TutelageError: an argument is out of range.
    """

    def __init__(self, kernel: Kernel, per_class: int = 10, ridge: float = 1e-6):
        self.kernel, self.per_class, self.ridge = kernel, per_class, float(ridge)
        if not ridge > 0:
            raise TutelageError(f"condense.ridge must be above 0; found {ridge}")

    def start(self, train: TrainingSet, seed: int) -> Condensed:
        """Returns real images, drawn with ``seed``, as many of each class."""
        check_per_class(self.per_class, train)
        rows = train.balanced(self.per_class, seed, "condense", "start")
        return Condensed(train.images[rows].double(), train.targets(rows))

    def condense(self, train: TrainingSet, seed: int, folder: Path) -> Condensed:
        """Returns the images of :meth:`start`."""
        return self.start(train, seed)

    def accuracy(self, found: Condensed, test: TrainingSet) -> float:
        """Returns the accuracy of the kernel regression from these images."""
        return accuracy(self.kernel, found.images, found.targets, self.ridge, test.images.double(), test.labels)


class LabelSolve(RealImages):
    """Label solve: real images, with the labels from which a kernel regression fits the training set best.

    ``y_s`` is the least-squares solution of ``K_ts (K_ss + λ·tr(K_ss)/n·I)⁻¹ y_s ≈ y_t``; targets are one-hot labels
    minus 1/C. In closed form; all in float64.

    Args:
        kernel: of two sets of images (:mod:`tutelage.condense.kernels`).
        per_class: images of each class.
        ridge: λ; published: 1e-6.
        targets: training images that are fitted, as many of each class.

    Raises:
        TutelageError: an argument is out of range.

    Nguyen, Chen & Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", 2021, arXiv:2011.00050.
    """

    def __init__(self, kernel: Kernel, per_class: int = 10, ridge: float = 1e-6, targets: int = 10_000):
        super().__init__(kernel, per_class, ridge)
        self.targets = targets
        check_counts(targets=targets)

    def condense(self, train: TrainingSet, seed: int, folder: Path) -> Condensed:
        """Returns the real images of :meth:`start` with solved labels."""
        found = self.start(train, seed)
        fitted = train.balanced(max(1, self.targets // train.classes), seed, "condense", "solve")
        rows = [
            weights(self.kernel, found.images, self.ridge, part.double()) for part in train.images[fitted].split(500)
        ]
        solved = torch.linalg.lstsq(torch.cat(rows), train.targets(fitted)).solution
        return Condensed(found.images, solved)


class KIP(LabelSolve):
    """Kernel inducing points: images from which a kernel regression fits the training set best.

    Minimises ``½·mean (K_ts (K_ss + λ·tr(K_ss)/n·I)⁻¹ y_s − y_t)²`` over the images (and ``y_s``, if ``learn_labels``)
    by Adam; a step fits ``targets`` training images, as many of each class, drawn anew. It starts at real images; all
    in float64. The images are of the normalised kind and not kept within the range of pixels.

    Args:
        kernel: of two sets of images (:mod:`tutelage.condense.kernels`).
        per_class: images of each class.
        ridge: λ; published: 1e-6.
        targets: training images of a step; published: 5,000.
        steps: of Adam; published: 300 to 1,000 and more.
        lr: of Adam; published: 0.04, for MNIST 0.01.
        learn_labels: whether labels are learned with the images.
        save_every: steps between two states from which it goes on after a kill.

    Raises:
        TutelageError: an argument is out of range.

    Nguyen, Chen & Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", 2021, arXiv:2011.00050; the authors'
    notebook has σ_b² = 0.01.
    """

    def __init__(
        self,
        kernel: Kernel,
        per_class: int = 10,
        ridge: float = 1e-6,
        targets: int = 2000,
        steps: int = 300,
        lr: float = 0.04,
        learn_labels: bool = False,
        save_every: int = 25,
    ):
        super().__init__(kernel, per_class, ridge, targets)
        check_counts(steps=steps, save_every=save_every)
        if not lr > 0:
            raise TutelageError(f"condense.lr must be above 0; found {lr}")
        self.steps, self.lr, self.learn_labels, self.save_every = steps, lr, learn_labels, save_every

    def condense(self, train: TrainingSet, seed: int, folder: Path) -> Condensed:
        """Returns the learned images, and their labels."""
        first = self.start(train, seed)
        images, targets = first.images.clone().requires_grad_(), first.targets.clone()
        learned = [images, targets.requires_grad_()] if self.learn_labels else [images]

        def loss(step: int) -> torch.Tensor:
            rows = train.balanced(max(1, self.targets // train.classes), seed, "condense", step)
            found = regress(self.kernel, images, targets, self.ridge, train.images[rows].double())
            return (found - train.targets(rows)).square().mean() / 2

        optimizer = torch.optim.Adam(learned, lr=self.lr)
        optimised(learned, optimizer, self.steps, loss, folder, self.save_every)
        return Condensed(images.detach(), targets.detach())
