"""Downloads a file from the first mirror that has the right one."""

import hashlib
import os
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from tutelage.errors import TutelageError
from tutelage.runtime.files import locked
from tutelage.runtime.masking import hide

_MOST = 1 << 30  # bytes


def download(name: str, md5: str, mirrors: Iterable[str], folder: Path, timeout: float = 30.0) -> Path:
    """Downloads ``name`` to ``folder`` unless it exists; concurrent processes wait for the first.

    The file gets its name only when it is complete and its checksum is correct.

    Args:
        name: name of the file, on the mirrors and locally.
        md5: MD5 checksum of the file, in hexadecimal.
        mirrors: addresses of folders, tried in turn.
        folder: target folder; created if missing.
        timeout: seconds without an answer after which the next mirror is tried.

    Returns:
        The path.

    Raises:
        TutelageError: no mirror has the file with this checksum; lists the failures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, failures = folder / name, []
    with locked(folder / f".{name}.lock"):
        if target.exists():
            return target
        for mirror in mirrors:
            url = f"{mirror.rstrip('/')}/{name}"
            try:
                return _fetch(url, md5, target, timeout)
            except (OSError, HTTPException, ValueError) as error:  # a TutelageError is a ValueError
                failures.append(hide(f"{url}: {error}"))
    raise TutelageError("\n  ".join([f"no mirror gave {name} with the MD5 checksum {md5}:", *failures]))


def _fetch(url: str, md5: str, target: Path, timeout: float) -> Path:
    partial = target.with_name(f".{target.name}.part")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urlopen(url, timeout=timeout) as answer, partial.open("wb") as file:
            while block := answer.read(1 << 20):
                digest.update(block)
                file.write(block)
                if file.tell() > _MOST:
                    raise TutelageError(f"more than {_MOST} bytes, where 170 million are the most that is published")
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != md5:
            raise TutelageError(f"its checksum is {digest.hexdigest()} ({partial.stat().st_size} bytes)")
        return partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
