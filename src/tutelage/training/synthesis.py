"""Rounds that make images for a pool: a generator and random numbers are optimised, the best images are kept."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.data.augment import Step
from tutelage.errors import TutelageError
from tutelage.losses.data_free.rounds import RoundLoss
from tutelage.models.generators import Generator
from tutelage.objective import Objective
from tutelage.training.pool import ImagePool
from tutelage.training.starts import Start
from tutelage.types import Batch

Losses = tuple[Tensor, Mapping[str, Tensor]]  # and the parts of the sum
Cost = Callable[[Batch], Losses]
Descend = Callable[[Tensor], None]


@dataclass(frozen=True)
class Synthesis:
    """The rounds of a pool, but for the generator, its terms and the number of their steps.

    In each round random numbers z and classes y of its images are drawn, ``start`` gives a generator, and both z and
    the generator descend on the terms. Those read views of the images (``batch.input`` and the others by name), y
    (``batch.wanted``) and z (``batch.latent``). The images of the step with the least loss, before augmentation, go to
    the pool. The student learns from images of the pool in the view ``input``.

    Args:
        start: which generator a round begins with.
        optimizer: groups of parameters → optimizer of the generator and z, new in each round.
        classes: number of classes, from which y is drawn uniformly.
        mean: of the data by channel; the generator's images are normalised.
        std: likewise.
        views: name → augmentations of images in [0, 1], of which ``input`` is one.
        latent_lr: learning rate of z; None: that of the generator.
        images: in a round; None: ``data.batch_size``.
        ahead: rounds before the student's first step.
        reset: number of a round, from 1, before which the generator's first layer is drawn anew; None: never.

    Raises:
        TutelageError: an argument is out of range, or a view or a step of one is missing.
    """

    start: Start
    optimizer: Callable[..., torch.optim.Optimizer]
    classes: int
    mean: Sequence[float]
    std: Sequence[float]
    views: Mapping[str, Sequence[Step]]
    latent_lr: float | None = None
    images: int | None = None
    ahead: int = 0
    reset: int | None = None

    def __post_init__(self) -> None:
        for name, least in {"classes": 2, "images": 1, "ahead": 0, "reset": 1}.items():
            found = getattr(self, name)
            optional = name in ("images", "reset") and found is None
            if not optional and (isinstance(found, bool) or not isinstance(found, int) or found < least):
                raise TutelageError(f"turns.synthesis.{name} must be a whole number ≥ {least}; found {found!r}")
        if self.latent_lr is not None and not self.latent_lr > 0:
            raise TutelageError(f"turns.synthesis.latent_lr must be above 0, or null; found {self.latent_lr!r}")
        if "input" not in self.views:
            raise TutelageError(f"turns.synthesis.views needs one named input; found {sorted(self.views)}")
        for name, steps in self.views.items():
            for step in steps:
                if not isinstance(step, Step):
                    raise TutelageError(
                        f"turns.synthesis.views.{name}: {type(step).__name__} is not a tutelage.data.augment.Step"
                    )

    @property
    def fields(self) -> set[str]:
        """Returns what a term may read of the batch."""
        return {"latent", "wanted", *self.views}

    def numbers(self, step: int) -> range:
        """Returns the numbers, from 0, of the rounds that are made in a training step, counted from 0."""
        return range(0 if step == 0 else step + self.ahead, step + self.ahead + 1)

    def seen(self, pixels: Tensor, view: str = "input") -> Tensor:
        """Returns images [B, C, H, W] in [0, 1] in a view, normalised."""
        for step in self.views[view]:
            pixels = step(pixels, torch.rand(len(pixels), step.draws, dtype=torch.float32, device=pixels.device))
        return self.normalised(pixels)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Returns images in [0, 1] as networks take them."""
        mean, std = self._scale(pixels)
        return (pixels - mean) / std

    def batch(self, generator: Generator, latent: Tensor, wanted: Tensor) -> tuple[Tensor, Batch]:
        """Returns the images of ``latent`` in [0, 1], and what terms read of them."""
        images = generator(latent)
        mean, std = self._scale(images)
        pixels = images * std + mean
        return pixels, {"latent": latent, "wanted": wanted, **{name: self.seen(pixels, name) for name in self.views}}

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and deviation of the data as [C, 1, 1]."""
        mean = torch.tensor([*self.mean], dtype=like.dtype, device=like.device)
        std = torch.tensor([*self.std], dtype=like.dtype, device=like.device)
        return mean[:, None, None], std[:, None, None]

    def draw(self, generator: Generator, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns z and y of ``count`` images."""
        return generator.draw(count, device), torch.randint(self.classes, (count,), device=device)


class Rounds:
    """Makes the rounds of a training: a synthesis with its generator, terms and pool.

    Args:
        synthesis: what rounds are made of.
        generator: that all rounds share.
        objective: what they minimise; its epochs are rounds.
        pool: takes their images.
    """

    def __init__(self, synthesis: Synthesis, generator: Generator, objective: Objective, pool: ImagePool):
        self.synthesis, self.generator, self.objective, self.pool = synthesis, generator, objective, pool
        self.remembering = [loss for _, loss in objective.losses() if isinstance(loss, RoundLoss)]

    def play(
        self,
        numbers: range,
        total: int,
        steps: int,
        count: int,
        cost: Cost,
        descend: Descend,
        settle: Callable[[], None],
    ) -> Losses:
        """Makes some rounds and adds their images to the pool.

        Args:
            numbers: of the rounds, from 0.
            total: number of rounds of the training.
            steps: of a round.
            count: images of a round, unless the synthesis says how many.
            cost: batch → what is minimised, and its parts.
            descend: called with the loss of each step: computes gradients, and steps what else learns.
            settle: called when a round has ended and the shared generator has its gradient.

        Returns:
            Loss and parts of the last step.
        """
        device = next(self.generator.parameters()).device
        for number in numbers:
            self.objective.on_epoch_start(number, total)
            if number + 1 == self.synthesis.reset:
                self.generator.reset_first()
            drawn = self.synthesis.draw(self.generator, self.synthesis.images or count, device)
            best, losses = self._round(steps, *drawn, cost, descend)
            settle()
            self.pool.add(best)
        return losses

    def _round(self, steps: int, latent: Tensor, wanted: Tensor, cost: Cost, descend: Descend) -> tuple[Tensor, Losses]:
        """Returns the best images of a round, [n, C, H, W] in [0, 1], and the last step's losses."""
        start = self.synthesis.start
        own, latent = start.begin(self.generator), latent.requires_grad_()
        rate = {} if self.synthesis.latent_lr is None else {"lr": self.synthesis.latent_lr}
        optimizer = self.synthesis.optimizer([{"params": [*own.parameters()]}, {"params": [latent], **rate}])
        least = math.inf
        for step in range(steps):
            pixels, batch = self.synthesis.batch(own, latent, wanted)
            loss, parts = cost(batch)
            value = loss.item()
            if not step or value < least:
                best, least = pixels.detach(), value
                for one in self.remembering:
                    one.on_best()
            optimizer.zero_grad()
            descend(loss)
            start.after_backward(self.generator, own)
            optimizer.step()
        start.end(self.generator, own)
        for one in self.remembering:
            one.on_round_end()
        return best, (loss.detach(), parts)
