"""Changes of texts that are drawn anew in each view, a function of (seed, view, key).

So a teacher and a student, a cache of ``views=K`` and a resumed run all see the same text. A change is one of token ids
(:class:`Rewrite`), whose random numbers are by example and place and do not depend on the other texts of a batch or its
padding; or one of words (:class:`WordRewrite`), after which a text is tokenised anew.
"""

import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tutelage import seeding
from tutelage.data.chance import Chance
from tutelage.data.text.tokenizer import Tokenizer
from tutelage.errors import TutelageError
from tutelage.types import Batch

_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


@runtime_checkable
class Rewrite(Protocol):
    """One kind of change of token ids; its random numbers are an argument, so it draws none itself."""

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


@runtime_checkable
class WordRewrite(Protocol):
    """One kind of change of words; it draws from a generator that is an argument."""

    def prepare_words(self, texts: Sequence[str], tokenizer: Tokenizer, cache: Path | None) -> None:
        """Learns which words may stand where, once.

        Args:
            texts: the training texts, without labels.
            tokenizer: which reads the changed texts.
            cache: folder where results are kept by content; None: nowhere.

        Raises:
            TutelageError: the tokenizer or a file lacks what is needed.
        """

    def rewritten(self, words: list[str], chance: random.Random) -> list[str]:
        """Returns the changed words, at least one, a function of the arguments."""


def words_of(text: str) -> list[str]:
    """Returns the words and punctuation marks of a text."""
    return _WORD.findall(text)


class Rewrites:
    """Applies rewrites one after the other: those of words, then those of token ids.

    In view 0 words stay as they are, so ``views=21`` are a text and twenty rewritings of it.

    Args:
        steps: the rewrites.
        seed: the run's seed.
        views: number of views of a text, view v + views being equal to view v; None: no limit.
        tokenizer: of the ids.
        texts: the training texts, from which rewrites of words learn.
        cache: folder where what they learn is kept by content; None: nowhere.

    Raises:
        TutelageError: something else than a rewrite, or no view.
    """

    def __init__(
        self,
        steps: Iterable[Rewrite | WordRewrite],
        seed: int,
        views: int | None,
        tokenizer: Tokenizer,
        texts: Sequence[str] = (),
        cache: Path | None = None,
    ):
        self._begin(seed, views)
        given = list(steps)
        self.of_words = [step for step in given if isinstance(step, WordRewrite)]
        self.of_ids = [step for step in given if isinstance(step, Rewrite)]
        for step in given:
            if not isinstance(step, WordRewrite | Rewrite):
                raise TutelageError(f"data.augment: {type(step).__name__} is no rewrite of texts (tutelage.data.text)")
        for step in self.of_words:
            step.prepare_words(texts, tokenizer, cache)
        for step in self.of_ids:
            step.prepare(tokenizer)

    def _begin(self, seed: int, views: int | None) -> None:
        self.seed, self.views = seed, views
        self.view = Chance(seed, views).view  # epoch → the number of the view that it uses

    def with_seed(self, seed: int, views: int | None = None) -> "Rewrites":
        """Returns the same rewrites with another seed, and another number of views if given."""
        other = object.__new__(Rewrites)
        other.of_words, other.of_ids = self.of_words, self.of_ids
        other._begin(seed, views or self.views)
        return other

    def changes_words(self, epoch: int) -> bool:
        """Checks whether texts of an epoch have other words than their originals."""
        return bool(self.of_words) and self.view(epoch) > 0

    def text(self, text: Any, key: int, epoch: int) -> Any:
        """Returns a text in an epoch's view, words separated by spaces; of a pair each text by itself.

        Args:
            text: a text, or a pair of texts.
            key: of the example.
            epoch: whose view it is.
        """
        pair = [text] if isinstance(text, str) else list(text)
        found = []
        for place, one in enumerate(pair):
            words = words_of(one)
            for number, step in enumerate(self.of_words):
                seed = seeding.derive_seed(self.seed, "words", number, self.view(epoch), key, place)
                words = step.rewritten(words, random.Random(seed)) if words else words
            found.append(" ".join(words))
        return found[0] if isinstance(text, str) else tuple(found)

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """Returns the batch in an epoch's view, which stands in ``view`` [B]."""
        view = self.view(epoch)
        for number, step in enumerate(self.of_ids):
            rows, width = batch["input"].shape
            seed = seeding.derive_seed(self.seed, "rewrite", number, view)
            chance = seeding.uniform(seed, batch["key"], width * step.draws).view(rows, width, step.draws)
            batch = step(batch, chance)
        return {**batch, "view": torch.full_like(batch["key"], view)}
