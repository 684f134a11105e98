"""Finds the one file that a path, a folder or an installed package stands for."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tutelage.errors import TutelageError


def only_file(source: str, pattern: str, key: str) -> Path:
    """Returns the file ``source``, or the only one that ``pattern`` finds in the folder or installed package.

    Args:
        source: a file, a folder or the name of a package.
        pattern: of ``Path.rglob``; empty: ``source`` must be a file.
        key: of the config, for messages.

    Raises:
        TutelageError: there is none, or there are several.
    """
    if (path := Path(source).expanduser()).is_file():
        return path
    folders = [path] if path.is_dir() else []
    if not folders and source.isidentifier() and (spec := find_spec(source)) is not None:
        folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    if not folders or not pattern:
        raise TutelageError(f"{key}: {source!r} is neither a file nor an installed package")
    return only([file for folder in folders for file in folder.rglob(pattern)], f"{key}: {source}")


def only(files: Sequence[Path], where: str) -> Path:
    """Returns the only one of some files.

    Raises:
        TutelageError: there is none, or there are several; names them.
    """
    if len(files) != 1:
        raise TutelageError(f"{where} should hold one such file; found {sorted(file.name for file in files) or 'none'}")
    return files[0]
