"""Starts of a round of synthesis: the generator that it begins with, and what it leaves for the next."""

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.generators import Generator


class Start:
    """The generator goes on as the round before has left it.

    Attributes:
        optimizer: parameters → optimizer of the generator that rounds share, which steps at the end of each; None if
            it does not learn from its rounds in this way.
    """

    optimizer: Callable[..., Any] | None = None

    def begin(self, generator: Generator) -> Generator:
        """Returns the generator that the steps of a round change.

        Args:
            generator: that all rounds share.
        """
        return generator

    def after_backward(self, generator: Generator, own: Generator) -> None:
        """Called after each backward pass of a round; ``own`` has gradients."""

    def end(self, generator: Generator, own: Generator) -> None:
        """Called after a round's last step, before :attr:`optimizer` steps."""


class Fresh(Start):
    """A generator with new weights in each round, as in CMI: N(0, 0.02), scales of normalisations N(1, 0.02)."""

    def begin(self, generator: Generator) -> Generator:
        """Draws the generator's weights anew."""
        generator.reset()
        return generator


class _Meta(Start):
    """A copy of the generator in each round, from which the generator itself learns at its end.

    Args:
        optimizer: parameters → optimizer of the generator itself.
    """

    def __init__(self, optimizer: Callable[..., Any]):
        self.optimizer = optimizer

    def begin(self, generator: Generator) -> Generator:
        """Returns a copy."""
        generator.zero_grad()
        return copy.deepcopy(generator)


class FOMAML(_Meta):
    """First-order MAML: the generator's gradient is the sum of those of its copy over the steps of a round.

    Args:
        optimizer: parameters → optimizer of the generator itself, one step a round; published: Adam at the copy's rate
            times the steps of a round.

    Fang et al., "Up to 100× Faster Data-free Knowledge Distillation", 2022, arXiv:2112.06253.
    """

    def after_backward(self, generator: Generator, own: Generator) -> None:
        """Adds the copy's gradient."""
        for one, other in zip(generator.parameters(), own.parameters(), strict=True):
            _add(one, other.grad)


class Reptile(_Meta):
    """REPTILE: the generator's gradient is ``factor`` times what it lacks of its copy after a round, ``θ − θ'``.

    Args:
        optimizer: parameters → optimizer of the generator itself, one step a round.
        factor: published: 67.

    Raises:
        TutelageError: ``factor`` is not above 0.

    Fang et al., "Up to 100× Faster Data-free Knowledge Distillation", 2022, arXiv:2112.06253.
    """

    def __init__(self, optimizer: Callable[..., Any], factor: float = 67.0):
        super().__init__(optimizer)
        if not factor > 0:
            raise TutelageError(f"Reptile.factor must be above 0; found {factor!r}")
        self.factor = factor

    def end(self, generator: Generator, own: Generator) -> None:
        """Sets the generator's gradient."""
        for one, other in zip(generator.parameters(), own.parameters(), strict=True):
            _add(one, self.factor * (one - other).detach())


def _add(parameter: nn.Parameter, gradient: Tensor | None) -> None:
    if gradient is not None:
        parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient
