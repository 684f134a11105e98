"""The files of CIFAR's Python archives: gzipped tar, pickled dictionaries of bytes, lists and an array."""

import codecs
import gzip
import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tutelage.errors import TutelageError

ROW = 3 * 32 * 32  # bytes of an image
_MOST = 1 << 29  # bytes of a file or an unpacked archive: more than twice the published ones


def read_archive(path: Path, folder: str, names: Collection[str]) -> dict[str, bytes]:
    """Reads files of a tar.gz into memory.

    Args:
        path: the archive.
        folder: the folder that all members must be in.
        names: the files to read in that folder.

    Returns:
        Contents by name.

    Raises:
        TutelageError: the archive is damaged, lacks a file, has a member that is elsewhere, or unpacks to far more than
            CIFAR.
    """
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_unpack(path)), mode="r:") as tar:
            for member in tar:
                top, *below = PurePosixPath(member.name).parts or ("",)
                if top != folder or ".." in below:
                    raise TutelageError(f"{path}: expected all members in {folder}/; found {member.name!r}")
                if member.issparse():  # a hole of any size is a few bytes
                    raise TutelageError(f"{path}: {member.name!r} has holes; a file of CIFAR has none")
                if member.isreg() and len(below) == 1 and below[0] in names:
                    contents[below[0]] = tar.extractfile(member).read()  # type: ignore[union-attr]
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise TutelageError(f"{path}: not a sound tar.gz file ({path.stat().st_size} bytes): {error}") from error
    if lacking := [name for name in names if name not in contents]:
        raise TutelageError(f"{path}: found no {', '.join(lacking)} in {folder}/; a whole archive has them")
    return contents


def read_file(path: Path) -> bytes:
    """Reads one file.

    Raises:
        TutelageError: it is far larger than any of CIFAR's.
    """
    if (size := path.stat().st_size) > _MOST:
        raise TutelageError(f"{path}: {size} bytes; CIFAR's files have up to 155,249,918")
    return path.read_bytes()


def _unpack(path: Path) -> bytes:
    """Unpacks a whole gzip file, including the check of its checksum."""
    unpacked = bytearray()
    with gzip.open(path) as file:
        while block := file.read(1 << 20):
            unpacked += block
            if len(unpacked) > _MOST:
                raise TutelageError(
                    f"{path}: unpacks to more than {_MOST} bytes; CIFAR's archives have some 186 million"
                )
    return bytes(unpacked)


def check_md5(path: Path, content: bytes, md5: str) -> None:
    """Checks that a file is the published one.

    Raises:
        TutelageError: both checksums, and the size.
    """
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise TutelageError(
            f"{path}: expected the published file's MD5 checksum {md5}; found {found} ({len(content)} bytes). "
            "If the file is meant to differ, set data.verify=false"
        )


class _Call:
    """A call in a pickle, kept as data instead of being executed."""

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    allowed = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Call,
        ("numpy._core.multiarray", "_reconstruct"): _Call,  # from numpy 2 on
        ("numpy", "ndarray"): _Call,
        ("numpy", "dtype"): _Call,
        ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes for Python 2
    }

    def __init__(self, path: Path, content: bytes):
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise TutelageError(
                f"{self.path}: refused, for it asks for {module}.{name}; a file of CIFAR needs nothing but numpy arrays"
            )
        return self.allowed[module, name]


def unpickle(path: Path, content: bytes) -> dict:
    """Loads a pickled dictionary, with strings of Python 2 as bytes, without importing or calling what it names.

    Args:
        path: what errors call it.
        content: the pickle.

    Raises:
        TutelageError: it is damaged, no dictionary, or asks for something else than arrays; that is named.
    """
    try:
        found = _Unpickler(path, content).load()
    except TutelageError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise TutelageError(f"{path}: not a sound pickle ({len(content)} bytes): {error}") from error
    if not isinstance(found, dict):
        raise TutelageError(f"{path}: expected a dictionary; found {type(found).__name__}")
    return found


def batch(path: Path, content: dict, key: bytes, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images and labels of one file.

    Args:
        path: what errors call it.
        content: what :func:`unpickle` gave.
        key: of the labels.
        num_classes: how many classes there are.

    Returns:
        [N, 3072] uint8, each row the red, then the green, then the blue pixels; [N] int64.

    Raises:
        TutelageError: either is missing or something else; the first label that is no class is named.
    """
    match content.get(b"data"):
        case _Call(
            state=(_, (int(count), int(width)), _Call(arguments=(b"u1" | "u1", *_)), bool(by_column), bytes(pixels))
        ) if width == ROW and len(pixels) == count * ROW:
            images = np.frombuffer(pixels, np.uint8).reshape(count, ROW, order="F" if by_column else "C")
        case _Call(state=(_, shape, _Call(arguments=(kind, *_)), _, bytes(pixels))):
            raise TutelageError(
                f"{path}: expected N rows of {ROW} unsigned bytes (u1) in b'data'; found the type {kind!r}, the shape "
                f"{shape} and {len(pixels)} bytes"
            )
        case found:
            raise TutelageError(f"{path}: expected an array in b'data'; found {_kind(found)}")
    labels = _list(path, content, key, int)
    if len(labels) != count:
        raise TutelageError(f"{path}: {count} images but {len(labels)} labels in {key!r}")
    for index, label in enumerate(labels):
        if not 0 <= label < num_classes:
            raise TutelageError(f"{path}: {key!r}[{index}] is {label}; expected 0 to {num_classes - 1}")
    return images, np.array(labels, np.int64)


def class_names(path: Path, content: dict, key: bytes, num_classes: int) -> list[str]:
    """Returns the names of the classes from the file that has them.

    Args:
        path: what errors call it.
        content: what :func:`unpickle` gave.
        key: of the names.
        num_classes: how many there must be.

    Raises:
        TutelageError: they are missing, something else, or of another number.
    """
    names = _list(path, content, key, bytes)
    if len(names) != num_classes:
        raise TutelageError(f"{path}: {len(names)} names in {key!r}; data.num_classes is {num_classes}")
    return [name.decode(errors="replace") for name in names]


def _list(path: Path, content: dict, key: bytes, kind: type) -> list:
    found = content.get(key)
    if not isinstance(found, list):
        raise TutelageError(f"{path}: expected a list in {key!r}; found {_kind(found)}")
    for index, value in enumerate(found):
        if type(value) is not kind:
            raise TutelageError(f"{path}: expected {kind.__name__} in {key!r}[{index}]; found {_kind(value)}")
    return found


def _kind(value: Any) -> str:
    if isinstance(value, _Call):
        return "a numpy object"
    return "nothing" if value is None else type(value).__name__
