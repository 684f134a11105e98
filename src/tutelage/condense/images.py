"""Images of a class-balanced draw, and the state of a condensation that goes on after a kill."""

import io
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tutelage import seeding
from tutelage.errors import TutelageError
from tutelage.runtime.files import write_atomically

log = logging.getLogger(__name__)

STATE = "state.pt"


@dataclass(frozen=True)
class TrainingSet:
    """The labelled images to condense.

    Args:
        images: [N, C, H, W] float32, normalised.
        labels: [N] int64.
        classes: number of classes.
        lowest: a pixel of 0, normalised; a number, or one for each channel [C, 1, 1].
        highest: the same of 1.
    """

    images: Tensor
    labels: Tensor
    classes: int
    lowest: Tensor | None = None
    highest: Tensor | None = None

    def balanced(self, per_class: int, *chance: int | str) -> Tensor:
        """Draws rows, ``per_class`` of each class (all of a smaller one), class by class: a function of ``chance``."""
        order = torch.randperm(len(self.labels), generator=seeding.generator(*chance))
        by_class = [order[self.labels[order] == c][:per_class] for c in range(self.classes)]
        return torch.cat(by_class)

    def targets(self, rows: Tensor) -> Tensor:
        """Returns one-hot labels − 1/classes, [n, classes] float64: the targets of a kernel regression."""
        return torch.nn.functional.one_hot(self.labels[rows], self.classes).double() - 1 / self.classes


@dataclass(frozen=True)
class Condensed:
    """Few images for many.

    Args:
        images: [n, C, H, W], normalised as those they are made of.
        targets: [n, classes], of a kernel regression; a network learns the class of the largest.
        rate: learning rate of SGD that was learned with them.
    """

    images: Tensor
    targets: Tensor
    rate: float | None = None


class Method(Protocol):
    """A way to condense a training set."""

    per_class: int

    def start(self, train: TrainingSet, seed: int) -> Condensed:
        """Returns as many real images, which the condensed ones start from and are compared with."""

    def condense(self, train: TrainingSet, seed: int, folder: Path) -> Condensed:
        """Returns the condensed images: a function of ``train`` and ``seed``, also if it was killed on the way.

        Args:
            train: the training set.
            seed: of all that is drawn.
            folder: for the state from which an interrupted condensation goes on.
        """

    def accuracy(self, found: Condensed, test: TrainingSet) -> float:
        """Returns the accuracy on the test of what the method fits to these images, or NaN if it fits nothing."""


class LearningNetworks(Protocol):
    """Networks that are trained on real images before anything is condensed."""

    def train(self, train: TrainingSet, folder: Path) -> None:
        """Fills a folder; after a kill it is called again on the partial content."""


@runtime_checkable
class FromExperts(Method, Protocol):
    """A method that learns from networks trained on the real images."""

    experts: LearningNetworks

    def after(self, trajectories: Path) -> Method:
        """Returns the method with the folder that the experts filled."""


def check_counts(**counts: int) -> None:
    """Refuses what is no whole number of at least 1.

    Raises:
        TutelageError: names the key.
    """
    for key, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise TutelageError(f"condense.{key} must be a whole number of at least 1; found {count!r}")


def check_per_class(per_class: int, train: TrainingSet) -> None:
    """Refuses more images of a class than there are.

    Raises:
        TutelageError: names the class.
    """
    check_counts(per_class=per_class)
    counts = train.labels.bincount(minlength=train.classes)
    if int(counts.min()) < per_class:
        raise TutelageError(
            f"condense.per_class={per_class}: class {int(counts.argmin())} has {int(counts.min())} labelled images"
        )


def optimised(
    parameters: list[Tensor],
    optimizer: torch.optim.Optimizer,
    steps: int,
    loss: Callable[[int], Tensor],
    folder: Path,
    save_every: int,
) -> None:
    """Takes the steps of an optimizer on images; after a kill it goes on from the last state in ``folder``.

    Args:
        parameters: changed in place; the optimizer's.
        optimizer: over them.
        steps: their number.
        loss: step → loss, a pure function of the parameters and the step.
        folder: where the state is.
        save_every: steps between two states.

    Raises:
        TutelageError: the loss is not finite.
    """

    def step(number: int) -> float:
        optimizer.zero_grad()
        value = loss(number)
        if value.isfinite():  # else it is refused
            value.backward()
            optimizer.step()
        return value.item()

    repeated(parameters, optimizer, steps, step, folder, save_every)


def repeated(
    parameters: list[Tensor],
    optimizer: torch.optim.Optimizer,
    steps: int,
    step: Callable[[int], float],
    folder: Path,
    save_every: int,
) -> None:
    """Repeats a step that changes parameters; after a kill it goes on from the last state in ``folder``.

    Args:
        parameters: changed in place.
        optimizer: over them.
        steps: number of steps.
        step: takes the step of a number and returns its loss; a pure function of parameters, optimizer and number.
        folder: where the state is.
        save_every: steps between two states.

    Raises:
        TutelageError: a loss is not finite.
    """
    first = _restored(parameters, optimizer, folder / STATE)
    for number in range(first, steps):
        value = step(number)
        if not math.isfinite(value):
            raise TutelageError(f"condense: the loss of step {number} is {value}; try a lower condense.lr")
        if (number + 1) % save_every == 0 or number + 1 == steps:
            log.info("condense step %d/%d  loss %.5g", number + 1, steps, value)
            state = {
                "step": number + 1,
                "parameters": [one.detach() for one in parameters],
                "optimizer": optimizer.state_dict(),
            }
            content = io.BytesIO()
            torch.save(state, content)
            write_atomically(folder / STATE, content.getvalue())


def _restored(parameters: list[Tensor], optimizer: torch.optim.Optimizer, path: Path) -> int:
    if not path.is_file():
        return 0
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        with torch.no_grad():
            for one, saved in zip(parameters, state["parameters"], strict=True):
                one.copy_(saved)
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])
    except Exception as error:  # a damaged file: torch raises anything
        raise TutelageError(
            f"{path} can't be read ({type(error).__name__}); remove it to begin this condensation again"
        ) from error
