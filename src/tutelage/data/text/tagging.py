"""Texts whose words have labels each: files in the format of CoNLL, with a label for the first token of each word."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tutelage.data.text.base import TextData
from tutelage.data.text.files import Paths, listed, listed_parts
from tutelage.data.text.labels import Labels
from tutelage.data.text.rows import Rows, joined_rows, lines_of
from tutelage.data.text.tokens import Tokens
from tutelage.errors import TutelageError, nearest
from tutelage.types import NO_LABEL


class TaggedWords(TextData):
    """Sentences of words with a label each: ``label`` [B, L] has it at a word's first token, elsewhere ``NO_LABEL``.

    A file has a word a line, its columns separated by tabs or spaces, and an empty line between sentences; lines that
    begin with ``-DOCSTART-`` are left out (Tjong Kim Sang and De Meulder, CoNLL-2003).

    Args:
        train: a file, or several of them.
        val: likewise; None: drawn from the training sentences.
        test: likewise; None: drawn from the training sentences, once.
        root: the folder that relative paths start from; None: the current one.
        word: number of the column of words, from 0.
        label: number of the column of labels; −1: the last.
        encoding: of the files' characters.
        class_names: the labels in order; None: those of the training sentences, ``O`` first, then by alphabet.
        num_classes: their number; found.
        num_outputs: as ``num_classes``; found.
        input_shape: ``[max_length]``; found.
        **common: arguments of :class:`~tutelage.data.text.base.TextData`.

    Raises:
        TutelageError: a file is missing or damaged, a line lacks a column, or a label is unknown; names file and line.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("train", *TextData.seen_through)

    def __init__(
        self,
        *,
        train: Paths,
        val: Paths | None = None,
        test: Paths | None = None,
        root: str | Path | None = None,
        word: int = 0,
        label: int = -1,
        encoding: str = "utf-8",
        class_names: Sequence[str] | None = None,
        num_classes: int | None = None,
        num_outputs: int | None = None,
        input_shape: Sequence[int] | None = None,
        **common: Any,
    ):
        parts = {
            part: joined_rows([read_words(path, word, label, encoding) for path in paths])
            for part, paths in listed_parts(root, train=train, val=val, test=test).items()
        }
        found = sorted({tag for tags in parts["train"].labels for tag in tags}, key=lambda tag: (tag != "O", tag))
        self.tags = list(class_names or found)
        if len(self.tags) < 2:
            raise TutelageError(
                f"{parts['train'].places(0)}: all words have the label {found[0]!r}; expected at least two"
            )
        for rows in parts.values():
            _check_tags(rows, self.tags)
        some = {part: torch.zeros(len(rows), 1, dtype=torch.long) for part, rows in parts.items()}
        labels = Labels(some, len(self.tags), len(self.tags), self.tags)
        super().__init__(parts=parts, labels=labels, class_names=class_names, **common)
        self.name = listed(root, train)[0].name

    def tokens(self, rows: Rows) -> Tokens:
        """Returns the token ids of a split's sentences, with the label of each word at its first token."""
        found = self.encode(rows)
        number = {tag: index for index, tag in enumerate(self.tags)}
        return replace(found, tags=_aligned(found, [[number[tag] for tag in tags] for tags in rows.labels]))


def read_words(path: Path, word: int, label: int, encoding: str) -> Rows:
    """Reads sentences of words with labels.

    Raises:
        TutelageError: there is no file, no sentence, or a line lacks a column; names the line.
    """
    if not path.is_file():
        raise TutelageError(f"there is no file {path}")
    texts: list[list[str]] = [[]]
    labels: list[list[str]] = [[]]
    starts: list[int] = []
    width: int | None = None
    for number, line in lines_of(path, encoding):
        columns = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or columns[0] == "-DOCSTART-":
            if texts[-1]:
                texts.append([])
                labels.append([])
            continue
        _check_columns(columns, width, word, label, f"{path}, line {number}")
        width = len(columns)
        if not texts[-1]:
            starts.append(number)
        texts[-1].append(columns[word])
        labels[-1].append(columns[label].strip())
    if not starts:
        raise TutelageError(f"{path} holds no sentence")
    return Rows(texts[: len(starts)], labels[: len(starts)], lambda row: f"{path}, line {starts[row]}")


def _check_columns(columns: Sequence[str], width: int | None, word: int, label: int, place: str) -> None:
    count = len(columns)
    if not (-count <= word < count and -count <= label < count) or count < 2:
        raise TutelageError(
            f"{place}: {count} columns; expected a word in column {word} and its label in column {label} (data.word, "
            "data.label)"
        )
    if width not in (None, count):
        raise TutelageError(f"{place}: {count} columns; the lines before have {width}")
    if word % count == label % count:
        raise TutelageError(f"data.word={word} and data.label={label} are the same column of {count}")
    if not columns[word].strip() or not columns[label].strip():
        raise TutelageError(f"{place}: an empty word or label")


def _check_tags(rows: Rows, known: Sequence[str]) -> None:
    for row, tags in enumerate(rows.labels):
        for tag in tags:
            if tag not in known:
                raise TutelageError(
                    f"{rows.places(row)}: its sentence has the label {tag!r}, none of the classes; "
                    f"{nearest(tag, known)}"
                )


def _aligned(tokens: Tokens, tags: Sequence[Sequence[int]]) -> Tensor:
    """Returns the label of each token [T]: that of its word at the first token of a word."""
    assert tokens.words is not None
    found = torch.full_like(tokens.ids, NO_LABEL)
    for row, own in enumerate(tags):
        part = slice(int(tokens.offsets[row]), int(tokens.offsets[row + 1]))
        words = tokens.words[part]
        first = words >= 0
        first[1:] &= words[1:] != words[:-1]
        found[part] = torch.where(first, torch.tensor(own, dtype=found.dtype)[words.clamp(min=0).long()], NO_LABEL)
    return found
