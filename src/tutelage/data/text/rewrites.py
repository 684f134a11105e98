"""Changes of token ids that are drawn anew in each view of a text, a function of (seed, view, key).

So a teacher and a student, a cache of ``views=K`` and a resumed run all see the same text. Random numbers are by
example and place: they do not depend on the other texts of a batch or its padding.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tutelage import seeding
from tutelage.data.chance import Chance
from tutelage.data.text.tokenizer import Tokenizer
from tutelage.errors import TutelageError
from tutelage.types import Batch


@runtime_checkable
class Rewrite(Protocol):
    """One kind of change; its random numbers are an argument, so it draws none itself."""

    draws: int  # number of uniform random numbers for each token

    def prepare(self, tokenizer: Tokenizer) -> None:
        """Learns what ids mean, once.

        Raises:
            TutelageError: the tokenizer lacks what is needed.
        """

    def __call__(self, batch: Batch, chance: Tensor) -> Batch:
        """Returns a changed batch; row i of it depends only on row i of ``batch`` and of ``chance``.

        Args:
            batch: with ``input`` [B, L] and ``mask`` [B, L].
            chance: [B, L, draws] float32, uniform in [0, 1).
        """


class Rewrites:
    """Applies rewrites one after the other.

    Args:
        steps: the rewrites.
        seed: the run's seed.
        views: number of views of a text, view v + views being equal to view v; None: no limit.
        tokenizer: of the ids.

    Raises:
        TutelageError: something else than a rewrite, or no view.
    """

    def __init__(self, steps: Iterable[Rewrite], seed: int, views: int | None, tokenizer: Tokenizer):
        self.steps, self.seed, self.views = list(steps), seed, views
        self.view = Chance(seed, views).view  # epoch → the number of the view that it uses
        for step in self.steps:
            if not isinstance(step, Rewrite):
                raise TutelageError(f"data.augment: {type(step).__name__} is no rewrite of texts (tutelage.data.text)")
            step.prepare(tokenizer)
        self.tokenizer = tokenizer

    def with_seed(self, seed: int, views: int | None = None) -> "Rewrites":
        """Returns the same rewrites with another seed, and another number of views if given."""
        return Rewrites(self.steps, seed, views or self.views, self.tokenizer)

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """Returns the batch in an epoch's view, which stands in ``view`` [B]."""
        view = self.view(epoch)
        for number, step in enumerate(self.steps):
            rows, width = batch["input"].shape
            seed = seeding.derive_seed(self.seed, "rewrite", number, view)
            chance = seeding.uniform(seed, batch["key"], width * step.draws).view(rows, width, step.draws)
            batch = step(batch, chance)
        return {**batch, "view": torch.full_like(batch["key"], view)}
