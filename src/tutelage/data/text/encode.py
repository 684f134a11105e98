"""Makes token ids of texts: once for a content, then they are read from disk."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.data.text.kept import kept
from tutelage.data.text.rows import Rows
from tutelage.data.text.tokenizer import Tokenizer
from tutelage.data.text.tokens import Tokens
from tutelage.errors import TutelageError

_AT_ONCE = 4096  # texts
_VERSION = 2  # of what the files of the cache hold


@dataclass(frozen=True)
class Encoder:
    """Makes token ids of texts.

    Args:
        tokenizer: of the library tokenizers.
        max_length: tokens of a text, special ones included.
        truncate: whether longer texts are cut; they are refused otherwise.
        folder: where ids are kept by content; None: nowhere.
    """

    tokenizer: Tokenizer
    max_length: int
    truncate: bool = True
    folder: Path | None = None

    def __call__(self, rows: Rows) -> Tokens:
        """Returns the ids of all texts; of pairs with their segments.

        Raises:
            TutelageError: a text has no token, or too many where they are not cut; names its place.
        """
        recipe = (_VERSION, self.tokenizer.digest, self.max_length if self.truncate else None)
        found = kept(self.folder, recipe, rows.texts, self._encode)
        tokens = Tokens(
            found["ids"], found["offsets"], found.get("segments"), None, rows.texts, found.get("words")
        )  # fmt: skip
        if (empty := self._words(tokens) == 0).any():
            place = rows.places(int(empty.int().argmax()))
            raise TutelageError(f"{place}: {self.tokenizer.name} finds no token in this text but special ones")
        if (long := tokens.lengths > self.max_length).any():
            row = int(long.int().argmax())
            whole = f"data.truncate=false ({int(long.sum())} of {len(rows)} texts are longer)"
            raise TutelageError(
                f"{rows.places(row)}: {int(tokens.lengths[row])} tokens; data.max_length is {self.max_length} and "
                + ("leaves no room beside the special ones" if self.truncate else whole)
            )
        return tokens

    def _words(self, tokens: Tokens) -> Tensor:
        """Returns how many tokens of each text, [N], are not added to it; unknown words count."""
        added = torch.tensor(
            [id for id in self.tokenizer.special if id != self.tokenizer.unknown], dtype=tokens.ids.dtype
        )
        found = torch.zeros(len(tokens.ids) + 1, dtype=torch.long)
        torch.cumsum(~torch.isin(tokens.ids, added), 0, out=found[1:])
        return found[tokens.offsets].diff()

    def few(self, texts: Sequence[Any]) -> Tokens:
        """Returns the ids of a batch's texts, without the library's threads, which worker processes can't share."""
        found = self._made(texts, self._one_by_one(texts))
        return Tokens(found["ids"], found["offsets"], found.get("segments"), None, texts)

    def _encode(self, texts: Sequence[Any]) -> dict[str, Tensor]:
        return self._made(texts, self.encodings(texts))

    def _made(self, texts: Sequence[Any], encodings: Iterable[Any]) -> dict[str, Tensor]:
        ids, segments, words, lengths = [], [], [], []
        for one in encodings:
            ids.append(np.array(one.ids, np.int32))
            lengths.append(len(one.ids))
            if isinstance(texts[0], tuple):
                segments.append(np.array(one.type_ids, np.uint8))
            elif isinstance(texts[0], list):
                words.append(np.array([-1 if word is None else word for word in one.word_ids], np.int32))
        found = {"ids": _flat(ids, np.int32), "offsets": torch.tensor([0, *lengths]).cumsum(0)}
        found |= {"segments": _flat(segments, np.uint8)} if segments else {}
        return found | ({"words": _flat(words, np.int32)} if words else {})

    def encodings(self, texts: Sequence[Any]) -> Iterator[Any]:
        """Yields an encoding of the library for each text, pair of texts or list of words."""
        words = bool(len(texts)) and isinstance(texts[0], list)
        with self._truncating() as inner:
            for start in range(0, len(texts), _AT_ONCE):
                yield from inner.encode_batch(texts[start : start + _AT_ONCE], is_pretokenized=words)

    def _one_by_one(self, texts: Sequence[Any]) -> Iterator[Any]:
        with self._truncating() as inner:
            for text in texts:
                yield inner.encode(text) if isinstance(text, str) else inner.encode(*text)

    @contextmanager
    def _truncating(self) -> Iterator[Any]:
        inner = self.tokenizer.inner
        inner.no_truncation()
        if self.truncate:
            try:
                inner.enable_truncation(self.max_length)
            except Exception as error:  # fewer than the special tokens; the library raises Exception itself
                raise TutelageError(f"data.max_length={self.max_length}: {error}") from error
        try:
            yield inner
        except Exception as error:  # no token for what is unknown, say; the library raises Exception itself
            raise TutelageError(f"{self.tokenizer.name} can't read a text: {error}") from error
        finally:
            inner.no_truncation()


def _flat(parts: list[np.ndarray], kind: type) -> Tensor:
    return torch.from_numpy(np.concatenate([*parts, np.zeros(0, kind)]).astype(kind))
