"""Batches of the inputs of `tutelage predict`: images of a folder, texts or numbers of a table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutelage.data.examples import Examples, normalisation
from tutelage.data.file_names import FileNames
from tutelage.data.folder_scan import list_images
from tutelage.data.image_folder import FilePixels
from tutelage.data.pil_images import fitted
from tutelage.data.text.encode import Encoder
from tutelage.data.text.rows import Columns, read
from tutelage.data.text.tokenizer import Tokenizer
from tutelage.data.text.tokens import TokenSet
from tutelage.errors import TutelageError
from tutelage.pipeline.tables import Chosen, rows
from tutelage.types import Batch

PIXELS = {"unit": 1.0, "bytes": 255.0}  # how a table has pixels → the greatest value
_ROUNDED = 1e-5  # that a pixel may be beyond the least and the greatest
_SHOWN = 40  # characters of a value in a message


@dataclass(frozen=True)
class Asked:
    """Examples without labels.

    Attributes:
        name: of the column that says which example a row answers.
        keys: its values.
        batch: indices → the fields of a batch.
    """

    name: str
    keys: Sequence[Any]
    batch: Callable[[Tensor], Batch]

    def batches(self, size: int) -> Iterator[Batch]:
        """Yields all examples in order."""
        yield from (self.batch(rows) for rows in torch.arange(len(self.keys)).split(size))


def texts(path: Path, text: str, pair: str | None, tokenizer: Tokenizer, max_length: int) -> Asked:
    """Returns the texts of a table, or of the lines of a ``.txt`` file, cut as in training.

    Raises:
        TutelageError: the file is missing, damaged or no table, or lacks a column; names the line.
    """
    found_rows = read([path], Columns(text, pair, None), "utf-8")
    count = len(found_rows)
    tokens = Encoder(tokenizer, max_length)(found_rows)
    found = TokenSet(Examples(tokens, torch.zeros(count, dtype=torch.long)), torch.arange(count), tokenizer.pad)

    def batch(indices: Tensor) -> Batch:
        fields = found[0, indices]
        own = {name: fields[name] for name in ("input", "mask", "segment") if name in fields}
        return own | {f"student_{name}": x for name, x in own.items()}

    return Asked("row", range(count), batch)


def images(folder: Path, about: Mapping[str, Any]) -> Asked:
    """Returns the images below a folder, scaled and cropped to the network's size as ``data=image_folder`` does.

    Raises:
        TutelageError: the network takes no images, or there are none.
    """
    shape = about["input_shape"] or ()
    if len(shape) != 3:
        raise TutelageError(f"input={folder} is a folder of images; the network takes inputs of shape {[*shape]}")
    found = list_images(folder)
    if not found.images:
        raise TutelageError(f"input={folder} holds no image{f': {found.reasons()}' if found.ignored else ''}")
    pixels = FilePixels(folder, FileNames(found.images), tuple(shape), about.get("resize"))
    return Asked("file", found.images, lambda rows: {"input": _normalised(pixels[rows], about)})


def numbers(path: Path, columns: Sequence[str] | str | None, about: Mapping[str, Any], pixels: str = "unit") -> Asked:
    """Returns the rows of a table of numbers, or of encoded images in a column of a parquet file.

    Numbers fill the network's input in the order of ``columns``; else in that of training, where its data named their
    columns; else in that of the first row, which a line in the log says. Those of an image that the network takes
    normalised are its pixels: from 0 to 1 (``unit``), or whole numbers from 0 to 255 (``bytes``).

    Raises:
        TutelageError: the file is missing, damaged or no table, a column is missing or unknown, there are too few or
            many for the network, or a value is no finite number or no such pixel; names the row.
    """
    shape = tuple(about["input_shape"] or ())
    of_pixels = len(shape) == 3 and bool(about["mean"])
    if pixels != "unit" and not of_pixels:
        raise TutelageError(f"pixels={pixels}: the network takes no normalised images, and reads numbers as they are")
    named = [columns] if isinstance(columns, str) else None if columns is None else [str(name) for name in columns]
    if named == []:
        raise TutelageError("columns=[]: name the columns that the network reads, in order, or leave it out")
    chosen = Chosen(named, about.get("input_names"), path)
    found, greatest = [], 0.0
    for where, row in rows(path):
        values = chosen.of(row, where)
        pictures = [one for one in values.values() if isinstance(one, Image.Image)]
        if len(shape) == 3 and len(pictures) == 1:
            found.append(_pixels(pictures[0], about, where))
            continue
        read = _floats(values, prod(shape), where)
        if of_pixels:
            greatest = max(greatest, read.max())
            read = _shares(read, [*values], pixels, where)
        found.append(read.reshape(shape))
    if not found:
        raise TutelageError(f"{path} holds no row")
    if pixels == "bytes" and 0 < greatest <= 1:
        raise TutelageError(f"{path}: no pixel is above 1; expected some, up to 255, with pixels=bytes: leave it out")
    stacked = torch.from_numpy(np.stack(found))
    return Asked("row", range(len(found)), lambda rows: {"input": _normalised(stacked[rows], about)})


def _floats(values: Mapping[str, Any], wanted: int, where: str) -> np.ndarray:
    if len(values) != wanted:
        raise TutelageError(
            f"{where}: the network takes {wanted} numbers; found {len(values)} columns, {', '.join([*values][:5])} …: "
            "columns=[…] names those that it reads, in order"
        )
    for name, value in values.items():
        try:
            finite = bool(abs(float(value)) <= float(np.finfo(np.float32).max))
        except (TypeError, ValueError, OverflowError):
            finite = False
        if not finite:
            raise TutelageError(f"{where}: column {name!r} is {value!r:.{_SHOWN}}; expected a finite number")
    return np.array([float(value) for value in values.values()], np.float32)


def _shares(values: np.ndarray, names: Sequence[str], pixels: str, where: str) -> np.ndarray:
    """Returns pixels from 0 to 1, of which a table has those of one kind."""
    greatest = PIXELS[pixels]
    outside = np.flatnonzero((values < -_ROUNDED) | (values > greatest + _ROUNDED))
    if outside.size:
        place = outside[0]
        other = ": pixels=bytes reads those from 0 to 255" if pixels == "unit" and values[place] > 1 else ""
        raise TutelageError(
            f"{where}: column {names[place]!r} is {values[place]:g}; the network takes images, whose pixels with "
            f"pixels={pixels} are from 0 to {greatest:g}{other}"
        )
    if pixels == "bytes" and (parts := np.flatnonzero(values % 1)).size:
        raise TutelageError(
            f"{where}: column {names[parts[0]]!r} is {values[parts[0]]:g}; with pixels=bytes pixels are whole numbers: "
            "without it they are read from 0 to 1"
        )
    shares: np.ndarray = values / np.float32(greatest)
    return shares


def _pixels(image: Image.Image, about: Mapping[str, Any], where: str) -> np.ndarray:
    try:
        found = fitted(image, tuple(about["input_shape"]), about.get("resize"))
        return found.transpose(2, 0, 1).astype(np.float32) / 255
    except ValueError as error:
        raise TutelageError(f"{where}: the image can't be used: {error}") from error


def _normalised(inputs: Tensor, about: Mapping[str, Any]) -> Tensor:
    if not about["mean"] or not about["std"]:
        return inputs
    return normalisation(about["input_shape"], about["mean"], about["std"])(inputs)  # in place: inputs are a copy
