"""Names of a great many files, in little memory."""

import hashlib
import os
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import Tensor


class FileNames:
    """Paths of files below a folder, packed into one array of bytes: lists of strings take three times as much.

    Parts of them (:meth:`take`) share these bytes, and so do the worker processes of a loader.

    Args:
        names: the paths.
    """

    def __init__(self, names: Iterable[str] = ()):
        self._text, self._ends = bytearray(), array("q", [0])
        self._rows: np.ndarray | None = None
        self.extend("", names)

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._rows is None else len(self._rows)

    def __getitem__(self, row: int) -> str:
        return os.fsdecode(self._bytes(row))

    def extend(self, folder: str, names: Iterable[str]) -> None:
        """Appends files of a folder; not to a part.

        Args:
            folder: empty for the common one.
            names: below it.
        """
        assert self._rows is None
        prefix, text, end = os.path.join(os.fsencode(folder), b""), self._text, self._ends[-1]
        for name in map(os.fsencode, names):
            text += prefix + name
            end += len(prefix) + len(name)
            self._ends.append(end)

    def take(self, rows: Tensor) -> "FileNames":
        """Returns those of ``rows`` [n] int64, in this order, without a copy of any name."""
        own = rows.numpy().astype(np.int32 if len(self._ends) < 1 << 31 else np.int64)
        made = FileNames()
        made._text, made._ends = self._text, self._ends
        made._rows = own if self._rows is None else self._rows[own]
        return made

    def content(self, root: Path) -> bytes:
        """Returns a digest of path, size and modification time of every file, below ``root``."""
        made, above = hashlib.sha256(), os.path.join(os.fsencode(root), b"")
        for row in range(len(self)):
            stat = os.stat(above + (name := self._bytes(row)))
            made.update(b"%b\0%d %d\n" % (name, stat.st_size, stat.st_mtime_ns))
        return made.digest()

    def _bytes(self, row: int) -> bytes:
        place = row if self._rows is None else int(self._rows[row])
        return bytes(memoryview(self._text)[self._ends[place] : self._ends[place + 1]])
