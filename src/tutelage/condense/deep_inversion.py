"""DeepInversion: images that a network alone, without its training data, is made to show."""

import logging
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage import seeding
from tutelage.condense.images import Condensed, TrainingSet, check_counts, repeated
from tutelage.errors import TutelageError
from tutelage.losses.data_free.batch_norm import BatchNormStatistics
from tutelage.losses.data_free.competition import Competition
from tutelage.models.tapped import Tapped

log = logging.getLogger(__name__)

_SIGNALS = ("", ".running_mean", ".running_var")  # of a tap on what enters a BatchNorm layer


class DeepInversion:
    """DeepInversion: pixels that a teacher sees as images of a class with the statistics of its training images.

    Minimises, over a batch x that starts at N(0, 1) with as many images of each class y,
    ``one_hot·CE(z_t, y) + norms·Σ_l m_l (‖μ_l − μ̂_l‖₂ + ‖σ²_l − σ̂²_l‖₂) + tv_l2·Σ_d ‖Δ_d x‖₂ + tv_l1·Σ_d mean|Δ_d x| +
    l2·mean_b ‖x_b‖₂`` by Adam, Δ_d being differences of neighbours in four directions
    (``BatchNormStatistics`` has the statistics). With a ``student`` it is
    Adaptive DeepInversion: ``competition·(1 − clamp(JS, 0, 1))`` is added, with the authors' JS
    (:class:`~tutelage.losses.data_free.competition.Competition`). In each step x is rolled by up to ``shift`` pixels
    and, if ``flip``, mirrored in half of the steps; after it x is clipped to the range of pixels. The learning rate
    rises for ``warmup`` steps and falls by a cosine to 0. Of the real images only size and number of classes are read.

    The images are those of the last step. (The authors' code for CIFAR-10 keeps the best in a variable that is the very
    tensor which the next step changes, so there, too, it is the last.)

    Args:
        teacher: network [B, C, H, W] normalised → logits; with BatchNorm layers, unless ``norms`` is 0.
        student: the network that is to differ from it; None: DeepInversion without competition.
        per_class: images of each class.
        batch: images that are optimised together, whose statistics are compared; published: 256.
        steps: of Adam, for each batch; published: 2,000.
        lr: of Adam; published: 0.05 to 0.1 on CIFAR-10, 0.2 to 0.25 on ImageNet.
        betas: of Adam; published: (0.9, 0.999) on CIFAR-10, (0.5, 0.9) on ImageNet.
        warmup: steps in which the learning rate rises; published: 100 on ImageNet, constant rates on CIFAR-10.
        one_hot: weight of the cross-entropy.
        norms: of the statistics; published: 10 to 100 on CIFAR-10, 0.01 to 0.05 on ImageNet.
        first_norm: m of the first layer, 1 for all others; published: 10 on ImageNet.
        tv_l2: of the total variation by norms; published: 2.5e-5 on CIFAR-10, 1e-4 on ImageNet.
        tv_l1: of the total variation by absolute values; published: 0.
        l2: of the images' norm; published: 0 on CIFAR-10, 1e-5 on ImageNet.
        competition: of the competition with ``student``; published: 0.2 on ImageNet.
        shift: greatest roll, pixels; published: 2 on CIFAR-10, 30 on ImageNet.
        flip: whether to mirror, which digits don't allow.
        save_every: steps between two states from which it goes on after a kill.

    Raises:
        TutelageError: an argument is out of range, or the teacher has no BatchNorm layer to compare with.

    Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", 2020, arXiv:1912.08795.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module | None = None,
        per_class: int = 50,
        batch: int = 250,
        steps: int = 2000,
        lr: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup: int = 100,
        one_hot: float = 1.0,
        norms: float = 10.0,
        first_norm: float = 1.0,
        tv_l2: float = 2.5e-5,
        tv_l1: float = 0.0,
        l2: float = 0.0,
        competition: float = 10.0,
        shift: int = 2,
        flip: bool = True,
        save_every: int = 100,
    ):
        check_counts(per_class=per_class, batch=batch, steps=steps, save_every=save_every)
        least = {"warmup": warmup, "shift": shift, "one_hot": one_hot, "norms": norms, "first_norm": first_norm}
        for key, value in (least | {"tv_l2": tv_l2, "tv_l1": tv_l1, "l2": l2, "competition": competition}).items():
            if not 0 <= value < math.inf:
                raise TutelageError(f"condense.{key} must be at least 0; found {value!r}")
        if not lr > 0:
            raise TutelageError(f"condense.lr must be above 0; found {lr}")
        self.per_class, self.batch, self.steps, self.save_every = per_class, batch, steps, save_every
        self.lr, self.betas, self.warmup, self.shift, self.flip = float(lr), tuple(betas), warmup, shift, flip
        self.one_hot, self.norms, self.tv_l2, self.tv_l1, self.l2 = one_hot, norms, tv_l2, tv_l1, l2
        paths = batch_norms(teacher) if norms else []
        self.layers = [f"norm{i}" for i in range(len(paths))]  # taps on what enters each
        if norms and not paths:
            raise TutelageError(
                f"condense.teacher: {type(teacher).__name__} has no BatchNorm layer, whose statistics DeepInversion "
                "compares: use a teacher with some, or condense.norms=0"
            )
        self.teacher = Tapped(teacher, {name: f"{path}.input" for name, path in zip(self.layers, paths, strict=True)})
        self.teacher.register_taps(f"{name}{ending}" for name in self.layers for ending in _SIGNALS)
        self.teacher.eval().requires_grad_(False)
        self.student = None if student is None or not competition else student.eval().requires_grad_(False)
        self.statistics, self.compete, self.competition = BatchNormStatistics(first_norm), Competition(), competition

    def start(self, train: TrainingSet, seed: int) -> Condensed:
        """Returns noise with its labels, as many of each class.

        Raises:
            TutelageError: the teacher or the student does not take such images, or has other classes or another
            normalisation.
        """
        count = self.per_class * train.classes
        shape = tuple(train.images.shape[1:])
        noise = torch.randn(count, *shape, generator=seeding.generator(seed, "condense", "start"))
        for name, net in (("teacher", self.teacher.net), ("student", self.student)):
            if net is not None:
                _check(name, net, noise[:2], train)
        labels = torch.arange(count) % train.classes
        return Condensed(noise, F.one_hot(labels, train.classes).double() - 1 / train.classes)

    def condense(self, train: TrainingSet, seed: int, folder: Path) -> Condensed:
        """Returns the images, with the labels that they were made for."""
        first = self.start(train, seed)
        labels = first.targets.argmax(1)
        parts = math.ceil(len(labels) / self.batch)
        batches = [part.clone().requires_grad_() for part in first.images.tensor_split(parts)]
        classes = labels.tensor_split(parts)

        # Adam skips a batch without gradients: batches are optimised one after the other.
        optimizer = torch.optim.Adam(batches, lr=self.lr, betas=self.betas)  # type: ignore[arg-type]

        def step(number: int) -> float:
            at, own = divmod(number, self.steps)
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self.factor(own)
            optimizer.zero_grad()
            loss = self.loss(self.moved(batches[at], seed, at, own), classes[at])
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                batches[at].clamp_(train.lowest, train.highest)
            return loss.item()

        repeated(batches, optimizer, parts * self.steps, step, folder, self.save_every)
        images = torch.cat([part.detach() for part in batches])
        with torch.no_grad():
            known = torch.cat([self.teacher.net(part).argmax(1) for part in images.split(self.batch)]) == labels
        log.info("the teacher sees the class of %.2f %% of the images", 100 * known.double().mean())
        return Condensed(images, first.targets)

    def accuracy(self, found: Condensed, test: TrainingSet) -> float:
        """Returns NaN: nothing is regressed from the images."""
        return float("nan")

    def factor(self, step: int) -> float:
        """Returns the factor of the learning rate in a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup))) / 2

    def moved(self, images: Tensor, seed: int, batch: int, step: int) -> Tensor:
        """Returns the images of a batch [B, C, H, W] rolled and mirrored, all in the same way."""
        chance = seeding.generator(seed, "condense", "moved", batch, step)
        roll = torch.randint(-self.shift, self.shift + 1, (2,), generator=chance).tolist()
        flips = self.flip and bool(torch.rand((), generator=chance) < 0.5)
        images = images.roll(roll, (2, 3))
        return images.flip(3) if flips else images

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Returns what the pixels minimise, a scalar.

        Args:
            images: [B, C, H, W].
            labels: [B] int64.
        """
        signals = self.teacher(images)
        logits = signals["logits"]
        total = self.one_hot * F.cross_entropy(logits, labels) + self.priors(images)
        if self.layers:
            read = [[signals[f"{name}{ending}"] for name in self.layers] for ending in _SIGNALS]
            total = total + self.norms * self.statistics(*read)
        if self.student is not None:
            total = total + self.competition * self.compete(self.student(images), logits)
        return total

    def priors(self, images: Tensor) -> Tensor:
        """Returns the terms of the images [B, C, H, W] alone: total variation and norm, a scalar."""
        differences = (
            images[..., :-1] - images[..., 1:],
            images[..., :-1, :] - images[..., 1:, :],
            images[..., 1:, :-1] - images[..., :-1, 1:],
            images[..., :-1, :-1] - images[..., 1:, 1:],
        )
        norm = torch.linalg.vector_norm
        l2, l1 = sum(norm(one) for one in differences), sum(one.abs().mean() for one in differences)
        return self.tv_l2 * l2 + self.tv_l1 * l1 + self.l2 * norm(images.flatten(1), dim=1).mean()


def batch_norms(net: nn.Module) -> list[str]:
    """Returns the paths of a network's BatchNorm layers that have gathered statistics, in the order of its modules."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return [
        name for name, module in net.named_modules() if isinstance(module, kinds) and module.running_mean is not None
    ]


def _check(name: str, net: nn.Module, images: Tensor, train: TrainingSet) -> None:
    normalise = getattr(net, "preprocess", None)  # of a network that was loaded from a file
    black = None if normalise is None else normalise(torch.zeros(images.shape[1], 1, 1))
    if black is not None and train.lowest is not None and not torch.allclose(black, train.lowest, atol=1e-4):
        raise TutelageError(
            f"condense.{name} was trained on images of another normalisation ({normalise}): give data.mean and "
            "data.std as it had them"
        )
    try:
        with torch.no_grad():
            found = list(net(images).shape)
    except RuntimeError as error:
        raise TutelageError(
            f"condense.{name}: {type(net).__name__} does not take images {list(images.shape[1:])}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if found != [len(images), train.classes]:
        raise TutelageError(
            f"condense.{name}: {type(net).__name__} answers {found} to {len(images)} images; the data have "
            f"{train.classes} classes"
        )
