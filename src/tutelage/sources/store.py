"""Stores signals on disk: one memory-mapped flat file per signal, with checksums; writing can be resumed."""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tutelage.checkpoints.weights import serialise
from tutelage.errors import TutelageError
from tutelage.runtime.files import recipe_digest, stamp, write_atomically
from tutelage.runtime.json_files import read_json, write_json

ROWS, BYTES = 4096, 256 << 20  # at most, of a block, the unit of computing, checking and resuming
AT_ONCE = 8 << 30  # bytes of a folder that are checked as it is opened; those of a larger one as they are first read
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int32": torch.int32}


@dataclass(frozen=True)
class Column:
    """One signal of N examples in V views.

    Attributes:
        name: name of the signal.
        shape: shape for one example; of a text as long as the longest one.
        dtype: a key of ``DTYPES``.
        tokens: axes of ``shape`` that are as long as the text.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    tokens: tuple[int, ...] = ()

    def file(self, folder: Path) -> Path:
        """Returns the path of the column's file, which holds [V, N, *shape], row after row."""
        return folder / f"{self.name}.bin"

    def bytes(self, rows: int) -> int:
        """Returns the size in bytes of ``rows`` rows."""
        return rows * torch.Size(self.shape).numel() * DTYPES[self.dtype].itemsize

    def mapped(self, folder: Path, views: int, rows: int) -> Tensor:
        """Returns the file memory-mapped as a tensor [V, N, *shape], whose pages all reading processes share."""
        count = views * rows * torch.Size(self.shape).numel()
        flat = torch.from_file(str(self.file(folder)), shared=False, size=count, dtype=DTYPES[self.dtype])
        return flat.view(views, rows, *self.shape)


class Writer:
    """Writes a folder block by block; continues after the finished blocks of a killed writer.

    Args:
        folder: an existing folder.
        columns: the signals.
        key: [N] keys of the examples, in the order of their rows.
        views: V.

    Raises:
        TutelageError: the disk has too little space.
    """

    def __init__(self, folder: Path, columns: list[Column], key: Tensor, views: int):
        self.folder, self.columns, self.key, self.views = folder, columns, key, views
        self.block = max(1, min(ROWS, BYTES // max(1, sum(column.bytes(1) for column in columns))))
        self.progress = folder / "progress.jsonl"
        for column in columns:
            _allocate(column.file(folder), column.bytes(views * len(key)))
        self.done = {(line["view"], line["start"]): line["crc"] for line in _lines(self.progress)}

    def missing(self) -> Iterator[tuple[int, int]]:
        """Yields (view, first row) of every block that is still to be written."""
        for view in range(self.views):
            for start in range(0, len(self.key), self.block):
                if (view, start) not in self.done:
                    yield view, start

    def write(self, view: int, start: int, signals: Mapping[str, Tensor]) -> None:
        """Writes one block [n, *shape] of each signal, then records it as done.

        Raises:
            TutelageError: a value is not finite in the column's dtype.
        """
        crc = {}
        for column in self.columns:
            block = signals[column.name].to(DTYPES[column.dtype]).contiguous().cpu()
            if block.is_floating_point() and not (finite := block.flatten(1).isfinite().all(1)).all():
                key = int(self.key[start + int((~finite).nonzero()[0])])
                raise TutelageError(f"signal {column.name!r} of example {key} is not finite as {column.dtype}")
            content = block.view(torch.uint8).numpy().tobytes() if block.numel() else b""
            with open(column.file(self.folder), "r+b") as file:
                file.seek(column.bytes(view * len(self.key) + start))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            crc[column.name] = zlib.crc32(content)
        with open(self.progress, "a") as file:
            file.write(json.dumps({"view": view, "start": start, "crc": crc}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[view, start] = crc

    def finish(self, parameters: Mapping[str, Tensor]) -> None:
        """Writes the index for readers: example keys, columns, their checksums, constant signals."""
        write_atomically(self.folder / "constant.safetensors", serialise({"key": self.key, **parameters}))
        write_json(
            self.folder / "store.json",
            {
                "version": 1, "views": self.views, "rows": len(self.key), "block": self.block,
                "columns": [
                    {"name": c.name, "shape": list(c.shape), "dtype": c.dtype, "tokens": list(c.tokens)}
                    for c in self.columns
                ],
                "crc": [{"view": view, "start": start, "crc": crc} for (view, start), crc in sorted(self.done.items())],
            },
        )  # fmt: skip
        self.progress.unlink()


@dataclass(frozen=True, eq=False)
class Store:
    """A finished folder.

    Attributes:
        key: [N] keys of the examples.
        columns: signal → [V, N, *shape], memory-mapped.
        constant: signal → parameter of the teacher.
        tokens: signal → the axes of its shape that are as long as the text, of those that have some.
        checksums: those that are still to be compared as rows are read; None of a folder that was compared whole.
    """

    key: Tensor
    columns: dict[str, Tensor]
    constant: dict[str, Tensor]
    tokens: dict[str, tuple[int, ...]]
    checksums: "Checksums | None"

    @staticmethod
    def read(folder: Path) -> "Store":
        """Opens a finished folder and checks its files; large ones are checked by ``checksums`` as they are read.

        Raises:
            TutelageError: a file is missing or damaged; names it.
        """
        try:
            about: dict[str, Any] = read_json(folder / "store.json")
            constant = load_file(folder / "constant.safetensors")
        except Exception as error:
            raise TutelageError(f"{folder}: cannot read signals here ({error})") from error
        found: dict[str, Tensor] = {}
        tokens: dict[str, tuple[int, ...]] = {}
        stamps = []
        for fields in about["columns"]:
            axes = tuple(fields.get("tokens", ()))
            column = Column(fields["name"], tuple(fields["shape"]), fields["dtype"], axes)
            path, expected = column.file(folder), column.bytes(about["views"] * about["rows"])
            size = path.stat().st_size if path.is_file() else None
            if size != expected:
                raise TutelageError(
                    f"{path}: expected {expected} bytes, found {size}; delete {folder} to compute it again"
                )
            stamps.append(stamp(path))
            found[column.name] = column.mapped(folder, about["views"], about["rows"])
            tokens |= {column.name: axes} if axes else {}
        checksums = Checksums(folder, found, about)
        large = sum(column.nbytes for column in found.values()) > AT_ONCE
        if not large and (seen := (*stamps, recipe_digest({"crc": about["crc"]}))) not in _verified:
            checksums.check_all()
            _verified.add(seen)
        return Store(constant.pop("key"), found, constant, tokens, checksums if large else None)


_verified: set[tuple[object, ...]] = set()  # folders checked by this process, as a job opens a store twice


class Checksums:
    """Compares the blocks of a folder with their checksums, each once.

    Args:
        folder: of the files, for messages.
        columns: signal → [V, N, *shape].
        about: the content of ``store.json``.

    Attributes:
        left: of every block, view after view, whether it is still to be compared.
    """

    def __init__(self, folder: Path, columns: Mapping[str, Tensor], about: Mapping[str, Any]):
        self.folder, self.columns, self.crc = folder, columns, about["crc"]
        self.rows, self.size = about["rows"], about["block"]
        self.left = torch.ones(len(self.crc), dtype=torch.bool)

    def check(self, rows: Tensor) -> None:
        """Compares the blocks that hold ``rows`` (view · N + row, on the CPU) and were not compared before.

        Raises:
            TutelageError: one is damaged; names it.
        """
        numbers = rows // self.rows * -(-self.rows // self.size) + rows % self.rows // self.size
        for number in numbers[self.left[numbers]].unique().tolist():
            self._compare(number)

    def check_all(self) -> None:
        """Compares all blocks that were not compared before.

        Raises:
            TutelageError: one is damaged; names it.
        """
        for number in self.left.nonzero().flatten().tolist():
            self._compare(number)

    def _compare(self, number: int) -> None:
        line = self.crc[number]
        for name, column in self.columns.items():
            block = column[line["view"], line["start"] : line["start"] + self.size]
            if zlib.crc32(block.contiguous().view(torch.uint8).numpy().data) != line["crc"][name]:
                raise TutelageError(
                    f"{self.folder / name}.bin: damaged in the rows from {line['start']} of view {line['view']}; "
                    f"delete {self.folder} to compute it again"
                )
        self.left[number] = False


def _allocate(path: Path, size: int) -> None:
    """Reserves the disk space at the start, so that a full disk fails before the teacher has run for hours."""
    with open(path, "ab") as file:
        try:
            if size:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise TutelageError(f"{path}: no disk space for {size} bytes ({error.strerror})") from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines that were completely written."""
    if not path.is_file():
        return
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
