"""Reads arrays of NumPy archives; nothing is unpickled."""

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tutelage.errors import TutelageError, nearest
from tutelage.runtime.file_sizes import check_size, read_npy


def read_arrays(path: Path, names: Iterable[str] | None, key: str) -> dict[str, np.ndarray]:
    """Returns arrays of an ``.npz`` file by name.

    Args:
        path: the file.
        names: of the arrays; None: all.
        key: of the config, for a file that is missing.

    Raises:
        TutelageError: the file is missing or damaged, lacks an array, one would have to be unpickled, or
            all together do not fit into memory.
    """
    if not path.is_file():
        raise TutelageError(f"{key}: there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name.removesuffix(".npy"): name for name in archive.namelist()}
            found = {}
            wanted = [*(arrays if names is None else names)]
            for name in wanted:
                if name not in arrays:
                    raise TutelageError(f"{path} has no array {name!r}; {nearest(name, arrays)}")
            check_size(path, sum(archive.getinfo(arrays[name]).file_size for name in wanted))
            for name in wanted:
                with archive.open(arrays[name]) as file:
                    found[name] = read_npy(file, archive.getinfo(arrays[name]).file_size, path)
    except TutelageError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TutelageError(f"{path}: not a sound .npz file ({path.stat().st_size} bytes): {error}") from error
    return found
