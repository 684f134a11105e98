"""Files that unpack to more than memory takes are refused by the sizes in their headers, before they are unpacked."""

import math
from pathlib import Path
from typing import IO, Any

import numpy as np

from tutelage.errors import TutelageError

_SHARE = 0.5  # of what is free


def free_memory() -> int:
    """Bytes that the machine says are available; 4 GiB where it does not say."""
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
            f"{path}: refused before it is unpacked, for its content takes {size / 2**30:.3g} GiB; {free / 2**30:.3g} "
            "GiB of memory are free, of which one file may take half"
        )


def read_npy(file: IO[bytes], size: int, path: object) -> np.ndarray[Any, Any]:
    """The array of a ``.npy`` file, whose header is compared with its size first; nothing is unpickled.

    Args:
        file: at its start; seekable.
        size: in bytes.
        path: what errors call it.

    Raises:
        TutelageError: the header speaks of more numbers than there are, or than memory takes.
    """
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read_header(file)
    claimed = math.prod(shape) * kind.itemsize
    if claimed > size:
        raise TutelageError(f"{path}: its header says {list(shape)} {kind}, {claimed} bytes; there are {size}")
    check_size(path, claimed)
    file.seek(0)
    array: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array
