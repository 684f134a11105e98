"""Reads files of a teacher's outputs: .npy, .npz, .csv and .parquet."""

import csv
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import TutelageError, nearest
from tutelage.runtime.file_sizes import check_size, read_npy

Columns = tuple[NDArray[Any], NDArray[Any], list[str] | None]  # keys [N], values [N, C], names [C] if any


_NUMBER = 8  # bytes


def read_outputs(path: Path, kind: str) -> tuple[NDArray[np.int64], NDArray[Any], list[str] | None]:
    """Reads the keys [N] and outputs [N, C] of a file. A key is the index of an example in the original training set.

    For tables it also returns the names of the columns [C], in the order of the values
    (:func:`tutelage.sources.output_columns.class_order`), else None.

    * ``.npy``: an array [N, C]; row = key.
    * ``.npz``: the arrays ``key`` [N] and ``logits`` or ``probabilities`` [N, C], according to ``kind``.
    * ``.csv``: a header, comma-separated; a column ``key`` and one column per class.
    * ``.parquet``: the same columns; needs the extra ``parquet``.

    Nothing is unpickled. The values are not checked here, but by :func:`tutelage.sources.outputs.as_logits`.

    Raises:
        TutelageError: no such file, an unknown ending, a damaged file or another layout, or keys that are not distinct
            integers of at least 0.
    """
    if (reader := _READERS.get(path.suffix.lower())) is None:
        raise TutelageError(f"{path}: unknown ending {path.suffix!r}; {nearest(path.suffix, _READERS)}")
    if not path.is_file():
        raise TutelageError(f"{path.absolute()}: no such file of a teacher's outputs")
    try:
        keys, values, names = reader(path, kind)
    except TutelageError:
        raise
    except Exception as error:  # a damaged file can raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TutelageError(f"{path}: truncated, damaged or not a {path.suffix} file of numbers ({reason})") from error
    return _checked(keys, values, path), values, names


def _npy(path: Path, kind: str) -> Columns:
    with path.open("rb") as file:
        values = read_npy(file, path.stat().st_size, path)
    return np.arange(len(values) if values.ndim else 0), values, None


def _npz(path: Path, kind: str) -> Columns:
    with zipfile.ZipFile(path) as archive:
        arrays = {name.removesuffix(".npy"): name for name in archive.namelist()}
        for name in ("key", kind):
            if name not in arrays:
                raise TutelageError(f"{path}: expected an array {name!r}; {nearest(name, arrays)}")
        found = []
        for name in (arrays["key"], arrays[kind]):
            with archive.open(name) as file:
                found.append(read_npy(file, archive.getinfo(name).file_size, path))
        return found[0], found[1], None


def _csv(path: Path, kind: str) -> Columns:
    check_size(path, path.stat().st_size * _NUMBER // 2)  # a number takes at least a digit and a comma
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
        at = _key_column(header, path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")  # reported below for all formats
            table = np.loadtxt(file, delimiter=",", quotechar='"', comments=None, ndmin=2, dtype=np.float64)
    if table.size and table.shape[1] != len(header):
        raise TutelageError(f"{path}: {len(header)} columns in the header, {table.shape[1]} below it")
    table = table.reshape(-1, len(header))
    return table[:, at], np.delete(table, at, axis=1), header[:at] + header[at + 1 :]


def _parquet(path: Path, kind: str) -> Columns:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise TutelageError(f"{path}: reading .parquet needs pyarrow: pip install 'tutelage[parquet]'") from error
    with path.open("rb") as file:
        content = parquet.ParquetFile(file)
        check_size(path, content.metadata.num_rows * content.metadata.num_columns * _NUMBER)
        table = content.read()
    at = _key_column(table.column_names, path)
    columns = [column.to_numpy() for column in table.columns]  # a null becomes NaN
    keys = columns.pop(at)
    if not columns:
        return keys, np.empty((len(keys), 0)), []
    if odd := next((column.dtype for column in columns if column.dtype.kind not in "fiu"), None):
        raise TutelageError(f"{path}: expected columns of numbers, found {odd}")
    names = list(table.column_names)
    return keys, np.column_stack(columns), names[:at] + names[at + 1 :]


def _key_column(header: list[str], path: Path) -> int:
    if (times := header.count("key")) != 1:
        raise TutelageError(f"{path}: expected one column 'key', found {times} among {', '.join(header) or 'none'}")
    return header.index("key")


def _checked(keys: NDArray[Any], values: NDArray[Any], path: Path) -> NDArray[np.int64]:
    if keys.ndim != 1 or values.ndim != 2 or len(keys) != len(values) or not len(keys):
        raise TutelageError(
            f"{path}: expected keys [N] and outputs [N, C], N ≥ 1; found {list(keys.shape)} and {list(values.shape)}"
        )
    whole = keys.dtype.kind in "iuf"
    odd = ~((keys >= 0) & (keys < 2**53) & (keys == np.floor(keys))) if whole else np.ones(len(keys), bool)
    if odd.any():
        row = int(odd.argmax())
        raise TutelageError(f"{path}: expected integers of at least 0 as keys, found {keys[row]} in row {row}")
    found = keys.astype(np.int64)
    first, times = np.unique(found, return_counts=True)
    if len(first) < len(found):
        twice = first[times > 1][0]
        rows = np.flatnonzero(found == twice)
        raise TutelageError(
            f"{path}: example {twice} occurs {len(rows)} times, first in rows {rows[0]} and {rows[1]}; "
            f"{len(found)} rows have {len(first)} distinct keys"
        )
    return found


_READERS = {".npy": _npy, ".npz": _npz, ".csv": _csv, ".parquet": _parquet}
