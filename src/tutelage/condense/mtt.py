"""Matching training trajectories: a network that learns from few images arrives where one that sees all does."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tutelage import seeding
from tutelage.condense.experts import Experts, weights
from tutelage.condense.images import Condensed, TrainingSet, check_counts, repeated
from tutelage.condense.matching import Matching, batches
from tutelage.data.augment import Step
from tutelage.errors import TutelageError

log = logging.getLogger(__name__)

_FALLEN = 30  # times that the learned rate is below its first value when it is warned of
Update = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class TrajectoryMatching(Matching):
    """Matching training trajectories (MTT): some steps on the images lead to where epochs on the real ones lead.

    Minimises ``‖θ_N − θ*_{e+M}‖² / ‖θ*_e − θ*_{e+M}‖²`` over the images and a learning rate η: ``θ_0 = θ*_e`` are an
    expert's weights after e epochs, ``θ_{i+1} = θ_i − η ∇CE(θ_i)`` on the images, and expert and e are drawn for each
    step of the images. The gradient goes through all N steps; these are taken a second time for it, one by one, so that
    the graph of only one is in memory.

    Args:
        experts: the networks whose trajectories are matched; an artifact of their own, which condensations share.
        per_class: images of each class.
        steps: of SGD on the images; published: 5,000.
        lr: of the images; published: 1,000 for most settings.
        rate: the learning rate η before the first step; published: 0.01.
        rate_lr: learning rate of η; published: 1e-5.
        momentum: of images and η; published: 0.5.
        student_steps: N; published: 10 to 80.
        expert_epochs: M; published: 2 or 3.
        max_start: e is below it; published: 2 to 40.
        batch: images of a step of the network; None: all.
        augment: of the images in steps of the network, each by itself; None: nothing.
        save_every: steps between two states from which it goes on after a kill.

    Raises:
        TutelageError: an argument is out of range.

    Cazenavette, Wang, Torralba, Efros & Zhu, "Dataset Distillation by Matching Training Trajectories", 2022,
    arXiv:2203.11932.
    """

    def __init__(
        self,
        experts: Experts,
        per_class: int = 10,
        steps: int = 300,
        lr: float = 1000.0,
        rate: float = 0.01,
        rate_lr: float = 1e-5,
        momentum: float = 0.5,
        student_steps: int = 10,
        expert_epochs: int = 2,
        max_start: int = 5,
        batch: int | None = None,
        augment: Step | None = None,
        save_every: int = 10,
    ):
        net = (experts.width, experts.depth, experts.padding)
        super().__init__(per_class, steps, lr, momentum, *net, augment, save_every)
        check_counts(student_steps=student_steps, expert_epochs=expert_epochs, max_start=max_start, batch=batch or 1)
        if not rate > 0 or not rate_lr >= 0:
            raise TutelageError(
                f"condense.rate must be above 0 and condense.rate_lr at least 0; found {rate} and {rate_lr}"
            )
        if max_start - 1 + expert_epochs > experts.epochs:
            raise TutelageError(
                f"condense.max_start={max_start} and condense.expert_epochs={expert_epochs} lead to epoch "
                f"{max_start - 1 + expert_epochs} of experts that have {experts.epochs} (condense.experts.epochs)"
            )
        self.experts, self.rate, self.rate_lr = experts, float(rate), float(rate_lr)
        self.student_steps, self.expert_epochs, self.max_start = student_steps, expert_epochs, max_start
        self.batch, self.trajectories = batch, Path()

    def after(self, trajectories: Path) -> "TrajectoryMatching":
        """Returns the method with the folder that :meth:`Experts.train` has filled."""
        known = copy.copy(self)
        known.trajectories = trajectories
        return known

    def condense(self, train: TrainingSet, seed: int, folder: Path) -> Condensed:
        """Returns the learned images with the labels that they started with, and the learned rate.

        Raises:
            TutelageError: the rate has left its range.
        """
        first = self.start(train, seed)
        images, labels = first.images.clone(), first.targets.argmax(1)
        rate = torch.tensor(self.rate, dtype=images.dtype)
        groups: list[dict[str, Any]] = [{"params": [images]}, {"params": [rate], "lr": self.rate_lr}]
        optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)
        net = self.network(train, 0)  # its weights are not used

        def step(number: int) -> float:
            chance = (seed, "condense", number)
            drawn = torch.randint(2**40, (2,), generator=seeding.generator(*chance, "expert"))
            expert, epoch = int(drawn[0]) % self.experts.count, int(drawn[1]) % self.max_start
            start, target = weights(self.trajectories, expert, epoch, epoch + self.expert_epochs)
            update = self.update(net, labels, *chance)
            loss, images.grad, rate.grad = gradients(update, self.student_steps, start, target, images, rate)
            optimizer.step()
            if rate <= 0:
                raise TutelageError(
                    f"condense: the learned rate of step {number} is {rate.item():.3g}; try a lower condense.rate_lr"
                )
            return loss

        repeated([images, rate], optimizer, self.steps, step, folder, self.save_every)
        if rate < self.rate / _FALLEN:
            log.warning(
                "condense: the learned rate fell from %g to %.3g, so that steps on the images hardly move a network: "
                "they teach little; try a lower condense.rate_lr", self.rate, rate.item(),
            )  # fmt: skip
        return Condensed(images, first.targets, rate.item())

    def update(self, net: nn.Module, labels: Tensor, *chance: int | str) -> Update:
        """Returns the step of a network: its number, weights [parameters], images and rate → the next weights."""
        size = min(self.batch or len(labels), len(labels))
        each = -(-len(labels) // size)  # steps in which every image comes once
        shapes = {name: one.shape for name, one in net.named_parameters()}

        def update(number: int, theta: Tensor, images: Tensor, rate: Tensor) -> Tensor:
            rows = batches(len(labels), size, *chance, "order", number // each)[number % each]
            seen = self.apart(images[rows], *chance, "augment", number)
            parts = theta.split([shape.numel() for shape in shapes.values()])
            named = {name: one.view(shape) for (name, shape), one in zip(shapes.items(), parts, strict=True)}
            loss = F.cross_entropy(functional_call(net, named, (seen,)), labels[rows])
            [slope] = torch.autograd.grad(loss, theta, create_graph=True)
            return theta - rate * slope

        return update


def gradients(
    update: Update, steps: int, start: Tensor, target: Tensor, images: Tensor, rate: Tensor
) -> tuple[float, Tensor, Tensor]:
    """Returns ``‖θ_N − target‖² / ‖start − target‖²`` and its gradients by images and rate.

    Args:
        update: (i, θ_i, images, rate) → θ_{i+1}; it is called twice for each i.
        steps: N.
        start: θ_0, [parameters].
        target: [parameters].
        images: [n, C, H, W].
        rate: a scalar.
    """
    images, rate = images.detach().requires_grad_(), rate.detach().requires_grad_()
    path = [start]
    for number in range(steps):
        path.append(update(number, path[-1].detach().requires_grad_(), images, rate).detach())
    scale = (start - target).square().sum()
    loss = (path[-1] - target).square().sum() / scale
    back, by_images, by_rate = 2 * (path[-1] - target) / scale, torch.zeros_like(images), torch.zeros_like(rate)
    for number in reversed(range(steps)):
        theta = path[number].detach().requires_grad_()
        back, *found = torch.autograd.grad(update(number, theta, images, rate), [theta, images, rate], back)
        by_images, by_rate = by_images + found[0], by_rate + found[1]
    return loss.item(), by_images, by_rate
