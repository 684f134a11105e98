"""Rewriting of sentences for a transfer set (Tang et al. 2019): masking, words of the same kind, n-grams."""

import random
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

from tutelage.data.text.rewrites import words_of
from tutelage.data.text.tokenizer import Tokenizer
from tutelage.errors import TutelageError

Tagger = Callable[[Sequence[str]], Sequence[str | None]]


class TangRewrite:
    """Changes some words, then perhaps keeps an n-gram alone.

    Each word becomes ``[MASK]`` with chance ``mask``; else, with chance ``same_tag``, another training word of its part
    of speech, drawn in proportion to the words' counts; else it stays. Then with chance ``ngram`` only n words in a row
    stay, n uniform from 1 to ``longest``, their place uniform. Theirs: 20 rewritings of a sentence, which with the
    sentence itself are ``views=21`` (duplicates are not dropped), labelled by the teacher (``loss.alpha=1``).

    Args:
        tagger: words → their parts of speech, such as :class:`~tutelage.data.text.word_tags.Lexicon`; None where a word
            has none. Null: no word is replaced by another, which ``same_tag=0`` must say.
        mask: chance of a word to be masked.
        same_tag: chance of a word to be replaced by another.
        ngram: chance of a text to be cut to an n-gram.
        longest: the greatest n.

    Raises:
        TutelageError: a number is out of range, there is no tagger, or the tokenizer has no [MASK].

    Tang et al., "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks", 2019, arXiv:1903.12136.
    """

    def __init__(
        self,
        tagger: Tagger | None = None,
        mask: float = 0.1,
        same_tag: float = 0.1,
        ngram: float = 0.25,
        longest: int = 5,
    ):
        for name, value in (("mask", mask), ("same_tag", same_tag), ("ngram", ngram), ("both", mask + same_tag)):
            if not 0 <= value <= 1:
                what = "mask + same_tag" if name == "both" else name
                raise TutelageError(f"TangRewrite: {what} must be in [0, 1]; found {value}")
        if longest < 1:
            raise TutelageError(f"TangRewrite: longest must be at least 1; found {longest}")
        if same_tag and tagger is None:
            raise TutelageError(f"TangRewrite: same_tag={same_tag} needs a tagger, such as Lexicon; or same_tag=0")
        self.tagger, self.mask, self.same_tag, self.ngram, self.longest = tagger, mask, same_tag, ngram, longest
        self._hidden = ""
        self._kinds: dict[str, tuple[list[str], list[int]]] = {}  # tag → its words, and their cumulated counts

    def prepare_words(self, texts: Sequence[str], tokenizer: Tokenizer, cache: Path | None) -> None:
        """Counts the training words of each part of speech.

        Raises:
            TutelageError: the tokenizer has no token that hides a word.
        """
        if self.mask and tokenizer.mask is None:
            raise TutelageError(f"TangRewrite: {tokenizer.name} has no token [MASK] or <mask>; mask=0 hides no word")
        self._hidden = tokenizer.inner.id_to_token(tokenizer.mask) if tokenizer.mask is not None else ""
        if self.tagger is None or not self.same_tag:
            return
        counts: dict[str, Counter[str]] = {}
        for text in texts:
            words = words_of(text)
            for word, tag in zip(words, self.tagger(words), strict=True):
                if tag is not None:
                    counts.setdefault(tag, Counter())[word] += 1
        self._kinds = {tag: (list(found), list(accumulate(found.values()))) for tag, found in counts.items()}

    def rewritten(self, words: list[str], chance: random.Random) -> list[str]:
        """Returns the changed words."""
        tags = [None] * len(words) if self.tagger is None else self.tagger(words)
        found = []
        for word, tag in zip(words, tags, strict=True):
            draw = chance.random()
            if draw < self.mask:
                word = self._hidden
            elif draw < self.mask + self.same_tag and tag is not None:
                word = self._another(word, tag, chance)
            found.append(word)
        if chance.random() < self.ngram:
            length = min(chance.randint(1, self.longest), len(found))
            start = chance.randint(0, len(found) - length)
            found = found[start : start + length]
        return found

    def _another(self, word: str, tag: str, chance: random.Random) -> str:
        """Returns another word of that kind, in proportion to the counts of all others."""
        known, ends = self._kinds.get(tag, ([], []))
        if len(known) < 2:
            return word if word in known or not known else known[0]
        while (found := known[bisect(ends, chance.random() * ends[-1])]) == word:
            pass
        return found
