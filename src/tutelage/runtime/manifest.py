"""Checksums of a finished folder: ``manifest.json``, written last and verified before the folder is used.

It has the size and SHA-256 of every permanent file, the time of writing, and a digest of itself. Files added later are
ignored; heartbeats, logs, locks and partial files never belong to it.
"""

import logging
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tutelage.errors import TutelageError
from tutelage.runtime.files import file_digest, is_missing, recipe_digest
from tutelage.runtime.json_files import read_json, write_json

log = logging.getLogger(__name__)

NAME = "manifest.json"
_PASSING = ("status.json", "heartbeat.json", "*.log", "*.ckpt", ".*", NAME)
_SMALL = 1 << 20  # bytes


def write(folder: Path, parts: Sequence[str] = ("**/*",)) -> None:
    """Writes the manifest of ``folder``, all files in it being complete.

    Args:
        folder: finished.
        parts: patterns of what belongs to it.
    """
    paths = {path for part in parts for path in folder.glob(part) if path.is_file() and _stays(path, folder)}
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(paths)
    }
    document = {"version": 1, "made": time.strftime("%Y-%m-%d %H:%M:%S%z"), "files": files}
    write_json(folder / NAME, {**document, "digest": recipe_digest(document)})


def _stays(path: Path, folder: Path) -> bool:
    if path.name == NAME:  # a subfolder has its own
        return path.parent != folder
    return not any(fnmatch(part, pattern) for part in path.relative_to(folder).parts for pattern in _PASSING)


def read(folder: Path) -> dict[str, Any]:
    """Reads the manifest of ``folder``.

    Raises:
        TutelageError: it is not there, or damaged.
    """
    path = folder / NAME
    if is_missing(path):
        raise TutelageError(f"{path} is missing: without it the folder is not known to be complete")
    document = read_json(path)
    rest = {key: value for key, value in document.items() if key != "digest"} if isinstance(document, dict) else {}
    if not rest or document.get("digest") != recipe_digest(rest):
        raise TutelageError(f"{path} is damaged: its content does not match its digest")
    return rest


def problems(folder: Path, quick: bool = False) -> dict[str, str]:
    """Returns the problem of every file of ``folder`` that is missing or changed, by name.

    Args:
        folder: finished.
        quick: compare only the size of files above 1 MiB.
    """
    try:
        files = read(folder)["files"]
    except TutelageError as error:
        return {NAME: str(error)}
    found = {name: _problem(folder / name, expected, quick) for name, expected in files.items()}
    return {name: problem for name, problem in found.items() if problem}


def problems_of_run(folder: Path) -> list[str]:
    """Returns what is wrong with the files of a finished run and of its student; a quick check.

    A run without a manifest, from an older version, has no known problems.
    """
    written = [place for place in (folder, folder / "checkpoints") if not is_missing(place / NAME)]
    found = [said for place in written for said in problems(place, quick=True).values()]
    return list(dict.fromkeys(said.removeprefix(f"{folder}/") for said in found))


def check(folder: Path, quick: bool = False) -> None:
    """Compares every file of ``folder`` with its manifest.

    Raises:
        TutelageError: a file is missing or changed; names the first and the number of others.
    """
    if found := list(problems(folder, quick).values()):
        raise TutelageError(found[0] + (f" (and {len(found) - 1} more)" if found[1:] else ""))


def check_file(folder: Path, name: str) -> None:
    """Compares one file of ``folder`` with its manifest.

    Raises:
        TutelageError: it has changed, or is not in the manifest.
    """
    files = read(folder)["files"]
    if name not in files:
        raise TutelageError(f"{folder / name} is not in {folder / NAME}")
    if problem := _problem(folder / name, files[name], quick=False):
        raise TutelageError(problem)


def _problem(path: Path, expected: dict[str, Any], quick: bool) -> str:
    try:
        if not path.is_file():
            return f"{path} is damaged: it is not a file" if path.exists() else f"{path} is missing"
        if (size := path.stat().st_size) != expected["bytes"]:
            return f"{path} is damaged: expected {expected['bytes']} bytes, found {size}"
        if not (quick and size > _SMALL) and file_digest(path) != expected["sha256"]:
            return f"{path} is damaged: its content is not what was written"
    except OSError as error:
        return f"{path} can't be read: {error.strerror}"
    return ""


def set_aside(path: Path, why: str) -> None:
    """Renames a damaged folder or file to ``….damaged-N`` and logs it."""
    number = 1
    while (place := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(place)
    log.warning("%s; kept as %s and made again", why, place.name)
