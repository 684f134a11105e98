"""Reads tables of examples in parquet files, as on the Hugging Face hub: a row per example, images as encoded files."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tutelage.errors import TutelageError, nearest
from tutelage.runtime.file_sizes import check_size

_AT_ONCE = 64  # rows that are read from a stream of them


def split_files(root: Path, split: str) -> list[Path]:
    """Lists the files of one split, such as ``train-00000-of-00002.parquet``, in order."""
    found = [path for path in root.glob("*.parquet") if path.stem == split or path.stem.startswith(f"{split}-")]
    return sorted(found) or sorted((root / "data").glob(f"{split}-*.parquet"))


class ParquetTable:
    """The rows of one or several files, memory-mapped column by column; a map-style dataset of dicts.

    Columns of structs with ``bytes``, in which the hub stores images, are read as PIL images.

    Args:
        paths: files with the same columns.
        columns: columns to read; null for all.

    Raises:
        TutelageError: pyarrow is missing, or a file is not parquet, too large, or lacks a column.
    """

    def __init__(self, paths: Sequence[str | Path], columns: Sequence[str] | None = None):
        self.paths = [Path(path) for path in paths]
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise TutelageError(
                f"{self.paths[0]}: reading .parquet needs pyarrow: pip install 'tutelage[parquet]'"
            ) from error
        tables = []
        for path in self.paths:
            try:
                file = parquet.ParquetFile(path)
                groups = range(file.metadata.num_row_groups)
                check_size(path, sum(file.metadata.row_group(group).total_byte_size for group in groups))
                self._check_columns(path, columns, file.schema_arrow.names)
                tables.append(file.read(columns=None if columns is None else list(columns)))
            except (OSError, pyarrow.ArrowException) as error:
                reason = str(error).splitlines()[0]
                raise TutelageError(f"{path}: can't be read as a parquet file: {reason}") from error
        try:
            self.table = pyarrow.concat_tables(tables).combine_chunks()
        except pyarrow.ArrowException as error:
            raise TutelageError(f"{self.paths[0]} and the files beside it differ in columns: {error}") from error

    @staticmethod
    def _check_columns(path: Path, wanted: Sequence[str] | None, found: list[str]) -> None:
        for name in wanted or ():
            if name not in found:
                raise TutelageError(f"{path} has no column {name!r}; {nearest(name, found)}")
            if found.count(name) > 1:
                raise TutelageError(f"{path} has {found.count(name)} columns {name!r}; expected one")

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Returns ``{column: value}`` with images opened."""
        values = {name: self.table.column(name)[row].as_py() for name in self.table.column_names}
        return {name: self._value(value, name, row) for name, value in values.items()}

    def image(self, column: str, row: int) -> Image.Image:
        """Opens one image without reading other columns of its row.

        Raises:
            TutelageError: it is no image.
        """
        found: Image.Image = self._value(self.table.column(column)[row].as_py(), column, row)
        return found

    def column(self, name: str) -> Any:
        """Returns a column of numbers as an array [N]."""
        return self.table.column(name).to_numpy()

    def names(self, column: str) -> list[str] | None:
        """Returns the names of a column's classes from the files' metadata; None without any."""
        metadata = {key.decode(): value.decode() for key, value in (self.table.schema.metadata or {}).items()}
        try:
            feature = json.loads(metadata.get("huggingface", "{}"))["info"]["features"][column]
            return [str(name) for name in feature["names"]]
        except (KeyError, TypeError, ValueError):
            return metadata["classes"].split("\n") if "classes" in metadata else None

    def _value(self, value: Any, name: str, row: int) -> Any:
        return _opened(value, f"{self.paths[0].parent}: column {name!r} of row {row}")


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of one file as ``{column: value}`` with images opened; a few are in memory at a time.

    Raises:
        TutelageError: pyarrow is missing, or the file is damaged.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise TutelageError(f"{path}: reading .parquet needs pyarrow: pip install 'tutelage[parquet]'") from error
    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            for some in file.iter_batches(batch_size=_AT_ONCE):
                for values in some.to_pylist():
                    yield {name: _opened(value, f"{path}: {name!r} of row {row}") for name, value in values.items()}
                    row += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise TutelageError(f"{path}: can't be read as a parquet file: {str(error).splitlines()[0]}") from error


def _opened(value: Any, where: str) -> Any:
    content = value.get("bytes") if isinstance(value, dict) else None
    if content is None:
        return np.asarray(value) if isinstance(value, list) else value
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return image
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error …
        raise TutelageError(f"{where} can't be read as an image ({len(content)} bytes): {error}") from error
