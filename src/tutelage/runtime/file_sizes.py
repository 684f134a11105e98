"""Refuses files whose content would not fit into memory, by the sizes in their headers."""

import math
import tarfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from tutelage.errors import TutelageError

_SHARE = 0.5  # of the free memory
_MOST_OF_NAMES = 1 << 20  # bytes of a tar member's extended header, which holds its name and times
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def free_memory() -> int:
    """Returns the available memory in bytes; 4 GiB if it is unknown."""
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 4 << 30


def check_size(path: object, size: int) -> None:
    """Refuses content that would take more than half of the free memory.

    Args:
        path: what the error calls the file.
        size: of its content in memory, in bytes, as its header says.

    Raises:
        TutelageError: names both sizes.
    """
    if size > _SHARE * (free := free_memory()):
        raise TutelageError(
            f"{path}: refused because its content takes {size / 2**30:.3g} GiB; {free / 2**30:.3g} GiB of memory are "
            "free, of which one file may use half"
        )


def read_npy(file: IO[bytes], size: int, path: object) -> np.ndarray[Any, Any]:
    """Returns the array of a ``.npy`` file after comparing its header with its size; nothing is unpickled.

    Args:
        file: at its start; seekable.
        size: in bytes.
        path: what errors call it.

    Raises:
        TutelageError: the header claims more numbers than the file has, or than fit into memory; or they are pickled.
    """
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read_header(file)
    if kind.hasobject:
        raise TutelageError(f"{path}: an array {list(shape)} of pickled objects, which are never unpickled")
    claimed = math.prod(shape) * kind.itemsize
    if claimed > size:
        raise TutelageError(f"{path}: its header says {list(shape)} {kind}, {claimed} bytes; there are {size}")
    check_size(path, claimed)
    file.seek(0)
    array: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


class TarMember(tarfile.TarInfo):
    """A member of a tar file whose extended headers are small: ``tarfile`` reads them whole before it yields anything.

    Raises:
        tarfile.ReadError: an extended header of more than 1 MiB.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "TarMember":
        """Returns the member of a header of 512 bytes."""
        made = super().frombuf(buf, encoding, errors)
        if made.type in _EXTENDED and made.size > _MOST_OF_NAMES:
            raise tarfile.ReadError(f"a header of {made.size} bytes; up to {_MOST_OF_NAMES} are read")
        return made
