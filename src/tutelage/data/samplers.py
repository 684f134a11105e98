"""Samplers: the training examples of an epoch and their order, a function of (seed, epoch) as the plain order is.

So a run with a sampler resumes to the bit, ranks share its batches, and teacher and student see the same ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from tutelage.data.labels import has_label, require_class
from tutelage.errors import TutelageError
from tutelage.runtime.file_sizes import read_npy


@runtime_checkable
class Measured(Protocol):
    """A training set whose examples have different lengths."""

    examples: Any

    def lengths(self, field: str) -> Tensor:
        """Returns the length of ``field`` in every example, [N] int64, by key."""


@runtime_checkable
class Sampler(Protocol):
    """Draws the examples of an epoch."""

    def size(self, train: Any) -> int:
        """Returns the number of examples of an epoch, the same in all."""

    def __call__(self, train: Any, batch_size: int, chance: torch.Generator) -> Tensor:
        """Returns the indices of the examples of an epoch in order; batch k is the k-th slice of ``batch_size``.

        Args:
            train: the training set; has ``labels`` [n, …] and ``keys`` [n].
            batch_size: over all ranks.
            chance: generator seeded with (seed, epoch), the only source of randomness.

        Returns:
            Indices into ``train``, ``size(train)`` of them.
        """


class Shuffled:
    """Takes every example once, shuffled, as data without a sampler do: in place of a loader's own sampler."""

    def size(self, train: Any) -> int:
        """Returns the number of all examples."""
        return len(train)

    def __call__(self, train: Any, batch_size: int, chance: torch.Generator) -> Tensor:
        """Shuffles."""
        return torch.randperm(len(train), generator=chance)


@runtime_checkable
class Repeatable(Protocol):
    """A training set of which an epoch may show several views of an example."""

    def repeated(self, times: int) -> Any:
        """Returns the set ``times`` times in a row, each time in another view."""


class Repeated:
    """Repeated augmentation: an epoch has ``times`` views of a part of the examples, next to each other.

    An epoch is as long as without: of N examples (rounded down to a multiple of ``round``, if there are as many) N /
    ``times`` are drawn, anew in each epoch, and each comes ``times`` times in a row, in another view; so all views of
    an example are in the same batch, unless that ends between them. Example i of epoch e is seen in views
    e·``times``, …, e·``times`` + ``times`` − 1. This is timm's ``RepeatAugSampler`` over all ranks, with an order that
    is a function of the seed, too. Hoffer et al., "Augment Your Batch" (2020), arXiv:1901.09335; Berman et al.,
    "MultiGrain" (2019), arXiv:1902.05509.

    Args:
        times: views of an example in an epoch.
        round: the length of an epoch is a multiple of this.

    Raises:
        TutelageError: an argument is below 1.
    """

    def __init__(self, times: int = 3, round: int = 256):
        for name, value in (("times", times), ("round", round)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TutelageError(f"data.sampler.{name} must be a whole number of at least 1; found {value!r}")
        self.times, self.round = times, round

    def size(self, train: Any) -> int:
        """Returns the number of examples, views of the same one counted apart."""
        count = len(train)
        return count // self.round * self.round if count >= self.round else count

    def __call__(self, train: Any, batch_size: int, chance: torch.Generator) -> Tensor:
        """Shuffles and repeats; view t of example i is index t·N + i."""
        count, size = len(train), self.size(train)
        order = torch.randperm(count, generator=chance)[: -(-size // self.times), None]
        return (order + count * torch.arange(self.times)).flatten()[:size]


class _Drawn:
    """Examples drawn with given weights."""

    def __init__(self, count: int | None, replacement: bool):
        if count is not None and count < 1:
            raise TutelageError(f"data.sampler.count must be at least 1, or null; found {count}")
        self.count, self.replacement = count, replacement

    def size(self, train: Any) -> int:
        """Returns ``count``, or the number of examples."""
        return self.count or len(train)

    def _draw(self, weights: Tensor, count: int, chance: torch.Generator) -> Tensor:
        if not self.replacement and count > (some := int((weights > 0).sum())):
            raise TutelageError(f"data.sampler.count={count}: {some} examples have a weight; set replacement=true")
        if self.replacement:  # by the inverse of the distribution: torch.multinomial ends at 2²⁴ weights
            total = weights.double().cumsum(0)
            points = torch.rand(count, generator=chance, dtype=torch.float64) * total[-1]
            return torch.searchsorted(total, points, right=True).clamp_(max=len(weights) - 1)
        # Efraimidis & Spirakis, "Weighted random sampling with a reservoir", 2006: the largest of u^(1/w)
        keys = torch.rand(len(weights), generator=chance, dtype=torch.float64).log() / weights.double()
        return keys.argsort(descending=True)[:count]


class ClassBalanced(_Drawn):
    """Draws every class equally often on average: an example's weight is 1 / (examples of its class).

    Unlabelled examples count as one more class.

    Args:
        count: number of examples in an epoch; null: that of the training set.
        power: exponent of the weight: 1 is balanced, 0 uniform, ½ square-root sampling (Mahajan et al. 2018).

    Raises:
        TutelageError: ``count`` is below 1.
    """

    def __init__(self, count: int | None = None, power: float = 1.0):
        super().__init__(count, replacement=True)
        self.power = power

    def size(self, train: Any) -> int:
        """``count``, or as many as there are.

        Raises:
            TutelageError: labels are not one class an example.
        """
        require_class("data.sampler: ClassBalanced", train.labels)
        return super().size(train)

    def __call__(self, train: Any, batch_size: int, chance: torch.Generator) -> Tensor:
        """Draws with replacement."""
        _, kind, counts = train.labels.unique(return_inverse=True, return_counts=True)
        return self._draw(counts[kind].double() ** -self.power, self.size(train), chance)


class Weighted(_Drawn):
    """Draws examples in proportion to given weights.

    Args:
        weights: one for each example of the original training set, by key, validation included: numbers, or a ``.npy``
            file of them.
        count: number of examples in an epoch; null: that of the training set.
        replacement: whether an example may occur several times in an epoch.

    Raises:
        TutelageError: weights are missing, negative or all 0.
    """

    def __init__(self, weights: Sequence[float] | str | Path, count: int | None = None, replacement: bool = True):
        super().__init__(count, replacement)
        self.given = weights

    def __call__(self, train: Any, batch_size: int, chance: torch.Generator) -> Tensor:
        """Draws by weight."""
        return self._draw(self._weights(train), self.size(train), chance)

    def _weights(self, train: Any) -> Tensor:
        given = _read(Path(self.given)) if isinstance(self.given, str | Path) else self.given
        weights = torch.as_tensor(np.asarray(given, np.float64))
        if weights.ndim != 1 or len(weights) <= int(train.keys.max()):
            raise TutelageError(
                f"data.sampler.weights: expected one for each training example, [{int(train.keys.max()) + 1}] or more; "
                f"found {list(weights.shape)}"
            )
        own = weights[train.keys]
        if not (own >= 0).all() or not own.isfinite().all() or not own.any():
            raise TutelageError("data.sampler.weights: expected numbers of at least 0, not all 0")
        return own


def _read(path: Path) -> np.ndarray[Any, Any]:
    if not path.is_file():
        raise TutelageError(f"data.sampler.weights: there is no file {path}")
    try:
        with path.open("rb") as file:
            return read_npy(file, path.stat().st_size, path)
    except (OSError, ValueError) as error:
        raise TutelageError(f"data.sampler.weights: {path} can't be read as .npy: {error}") from error


class ByLength:
    """Forms batches of examples of similar length to reduce padding, every example once.

    The order is shuffled; the examples of each ``window`` batches are sorted by length, and the batches shuffled.

    Args:
        field: field of the batch whose second dimension is the length; needs data with lengths
            (:mod:`tutelage.data.dataset`), and reads every example once.
        window: number of batches.
        labelled_only: whether an epoch has the labelled examples alone, as for a teacher that learns from a few.

    Raises:
        TutelageError: ``window`` is below 1.
    """

    def __init__(self, field: str = "input", window: int = 32, labelled_only: bool = False):
        if window < 1:
            raise TutelageError(f"data.sampler.window must be at least 1; found {window}")
        self.field, self.window, self.labelled_only = field, window, labelled_only
        self._known: tuple[Any, Tensor] | None = None

    def size(self, train: Any) -> int:
        """Returns the number of all examples, or of the labelled ones."""
        return int(has_label(train.labels).sum()) if self.labelled_only else len(train)

    def __call__(self, train: Any, batch_size: int, chance: torch.Generator) -> Tensor:
        """Shuffles, sorts within windows, shuffles the batches of each."""
        lengths, order = self._lengths(train), torch.randperm(len(train), generator=chance)
        if self.labelled_only:
            order = order[has_label(train.labels)[order]]
        parts: list[Tensor] = []
        for some in order.split(self.window * batch_size):
            batches = some[lengths[some].argsort(stable=True)].split(batch_size)
            whole = [batch for batch in batches if len(batch) == batch_size]
            parts += [whole[i] for i in torch.randperm(len(whole), generator=chance)]
            parts += [batch for batch in batches if len(batch) < batch_size]
        return torch.cat(parts)

    def _lengths(self, train: Any) -> Tensor:
        if self._known is None or self._known[0] is not train.examples:
            if not isinstance(train, Measured):
                raise TutelageError("data.sampler: ByLength needs examples of different lengths; these have one shape")
            self._known = train.examples, train.lengths(self.field)
        return self._known[1][train.keys]
