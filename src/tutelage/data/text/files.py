"""Texts of one's own files, labelled and unlabelled."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from tutelage.data.text.base import TextData
from tutelage.data.text.labels import labels_of
from tutelage.data.text.rows import Columns, Rows, read
from tutelage.errors import TutelageError

Paths = str | Path | Sequence[str | Path]


class TextFiles(TextData):
    """Texts in TSV, CSV, JSONL or parquet files, or in a folder of ``.txt`` files for each class.

    Args:
        train: a file or folder, or several of them.
        val: likewise; None: drawn from the training texts (``val_size``, ``split_seed``).
        test: likewise; None: drawn from the training texts, once (``test_size``).
        root: the folder that relative paths start from; None: the current one.
        text: column of the text.
        pair: column of a second text; None without.
        label: column of the label.
        key: column of an identifier by which rows are sorted, so that their order in the file does not matter.
        columns: names of all columns of a TSV or CSV file whose first line does not have them.
        encoding: of the files' characters.
        label_dtype: ``int`` or ``float``, where a label's look would mislead.
        class_names: the classes in order; None: as found. Of folders also which are read.
        num_classes: number of classes; None: as found.
        num_outputs: as ``num_classes``, or 1 where labels are numbers; found.
        input_shape: ``[max_length]``; found.
        **common: arguments of :class:`~tutelage.data.text.base.TextData`.

    Raises:
        TutelageError: a file is missing or damaged, a column is missing, or a label is unknown; names file and line.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("train", *TextData.seen_through)

    def __init__(
        self,
        *,
        train: Paths,
        val: Paths | None = None,
        test: Paths | None = None,
        root: str | Path | None = None,
        text: str = "text",
        pair: str | None = None,
        label: str | None = "label",
        key: str | None = None,
        columns: Sequence[str] | None = None,
        encoding: str = "utf-8",
        label_dtype: str | None = None,
        class_names: Sequence[str] | None = None,
        num_classes: int | None = None,
        num_outputs: int | None = None,
        input_shape: Sequence[int] | None = None,
        **common: Any,
    ):
        named = Columns(text, pair, label, key, columns)
        parts = {
            part: read(paths, named, encoding, class_names)
            for part, paths in listed_parts(root, train=train, val=val, test=test).items()
        }
        labels = labels_of(parts, class_names, num_classes, label_dtype)
        super().__init__(parts=parts, labels=labels, class_names=class_names, **common)
        self.name = listed(root, train)[0].name


class FurtherTexts:
    """Texts of files without their labels, for ``data.unlabelled``.

    Args:
        path: a file or folder, or several of them; a ``.txt`` file has a text a line.
        text: column of the text.
        pair: column of a second text; None without.
        columns: names of all columns of a TSV or CSV file whose first line does not have them.
        encoding: of the files' characters.
    """

    def __init__(
        self,
        *,
        path: Paths,
        text: str = "text",
        pair: str | None = None,
        columns: Sequence[str] | None = None,
        encoding: str = "utf-8",
    ):
        self.paths, self.encoding = listed(None, path), encoding
        self.columns = Columns(text, pair, None, None, columns)

    def rows(self) -> Rows:
        """Returns all texts.

        Raises:
            TutelageError: a file is missing or damaged, or lacks a column; names file and line.
        """
        return read(self.paths, self.columns, self.encoding)


def listed_parts(root: str | Path | None, **given: Paths | None) -> dict[str, list[Path]]:
    """Returns the paths of each part that is given.

    Raises:
        TutelageError: a part is an empty list.
    """
    return {part: listed(root, paths) for part, paths in given.items() if paths is not None}


def listed(root: str | Path | None, given: Paths) -> list[Path]:
    """Returns one or several paths as a list.

    Raises:
        TutelageError: there is none.
    """
    several = [given] if isinstance(given, str | Path) else list(given)
    if not several:
        raise TutelageError("data.train: expected a file or folder, or several of them; found an empty list")
    return [Path(root or "").expanduser() / Path(one).expanduser() for one in several]
