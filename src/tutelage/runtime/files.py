"""Writes files atomically, and locks and digests them."""

import hashlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from tutelage.errors import TutelageError

SOON, POLL = 10.0, 0.5  # after so many seconds a lock is asked for less often: a thousand jobs may wait for one


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Writes beside the final name, syncs, renames: a crash or a full disk leaves the old file or none.

    Not ``durable``, it may be gone after a crash of the machine, at a hundredth of the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise TutelageError(f"{path}: expected a file there, found a folder")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)  # name the final file, not the temporary one
        raise
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames inside ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, timeout: float = -1) -> Iterator[None]:
    """Context manager that holds a lock file; the lock ends with its process, however that ends.

    Every user may lock the file, whatever the umask, because folders of artifacts are shared.

    Args:
        path: of the lock file, which stays.
        timeout: seconds to wait; −1: without end.

    Raises:
        TutelageError: the file can't be made or locked.
        filelock.Timeout: another process has the lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = _acquired(FileLock(path, mode=0o666), timeout)
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TutelageError(
            f"{path} can't be locked ({reason}): its folder must be writable and on a file system with flock"
        ) from error
    with held:
        yield


def _acquired(lock: FileLock, timeout: float) -> AcquireReturnProxy:
    try:
        return lock.acquire(timeout=SOON if timeout < 0 else min(SOON, timeout))
    except Timeout:
        if 0 <= timeout <= SOON:
            raise
        return lock.acquire(timeout=timeout if timeout < 0 else timeout - SOON, poll_interval=POLL)


def file_system_time(folder: Path) -> float:
    """Returns the time in seconds since 1970 by the clock of the file system of ``folder``.

    If nothing can be written there, it is this machine's.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
            probe.flush()
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()


def recipe_digest(recipe: Mapping[str, Any]) -> str:
    """Returns 20 hex digits of the SHA-256 of the canonical JSON of ``recipe``."""
    return hashlib.sha256(canonical(recipe).encode()).hexdigest()[:20]


def canonical(document: Any) -> str:
    """Returns JSON with sorted keys; keys that are not strings (YAML allows them) are sorted as their JSON text."""
    return json.dumps(_with_texts_for_keys(document), sort_keys=True)


def _with_texts_for_keys(node: Any) -> Any:
    if isinstance(node, Mapping):
        named = {key if isinstance(key, str) else json.dumps(key): value for key, value in node.items()}
        return {key: _with_texts_for_keys(value) for key, value in named.items()}
    return [_with_texts_for_keys(value) for value in node] if isinstance(node, list | tuple) else node


_digests: dict[Path, tuple[tuple[int, ...], str]] = {}


def file_digest(path: Path) -> str:
    """Returns the SHA-256 (64 hex digits) of a file; it is read again only if its :func:`stamp` changed."""
    now, known = stamp(path), _digests.get(path.absolute())
    if known is None or known[0] != now:
        with path.open("rb") as file:
            known = now, hashlib.file_digest(file, "sha256").hexdigest()
        _digests[path.absolute()] = known
    return known[1]


def stamp(path: Path) -> tuple[int, ...]:
    """Returns device, inode, size and times of a file, which differ after every change of its content."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def is_missing(path: Path) -> bool:
    """Checks whether nothing is at a path; False if its folder may not be read, so that reading reports that."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def remove_temporary_files(folder: Path, pattern: str = "**/.*.tmp") -> None:
    """Removes partly written files of killed processes below ``folder``, which this process owns."""
    for path in folder.glob(pattern):
        path.unlink(missing_ok=True)
