"""Shards: a training set in many files, of which one is open at a time."""

import glob
import io
import json
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import IterableDataset

from tutelage.data.npz import read_arrays
from tutelage.data.parquet import rows_of
from tutelage.errors import TutelageError
from tutelage.runtime.file_sizes import TarMember, check_size, read_npy


class Shards(IterableDataset[Any]):
    """The samples of several files, one file after the other, for ``data=streamed``.

    Args:
        files: paths or patterns, such as ``/my/set/train-*.tar``; those of a pattern in the order of their names.
        read: function from a path to the samples in it; null: by the end of its name, ``.tar``
            (:func:`samples_of_tar`), ``.parquet`` (:func:`~tutelage.data.parquet.rows_of`) or ``.npz``
            (:func:`samples_of_npz`).
        length: number of samples of all files together, if it is known.
        shuffle: whether each pass has the files in an order of its own. The places of samples in a pass, which are
            their keys, then differ from pass to pass: there is no cache of a teacher's signals.
        classes: names of the classes.

    Raises:
        TutelageError: there is no such file, or nothing says how to read it.
    """

    def __init__(
        self,
        files: str | Sequence[str],
        read: Callable[[Path], Iterable[Any]] | None = None,
        length: int | None = None,
        shuffle: bool = False,
        classes: Sequence[str] | None = None,
    ):
        self.files = [path for one in ([files] if isinstance(files, str) else files) for path in _found(one)]
        self.read, self.length, self.shuffle, self.classes = read, length, shuffle, classes
        for path in self.files:
            if read is None and path.suffix not in _READERS:
                raise TutelageError(
                    f"{path}: nothing says how to read it; expected {', '.join(_READERS)}, or read={{_target_: …, "
                    "_partial_: true}, a function from a path to samples"
                )

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("the number of samples is not known: length=… says it")
        return self.length

    def __iter__(self) -> Iterator[Any]:
        files = random.sample(self.files, len(self.files)) if self.shuffle else self.files
        for path in files:
            read = self.read or _READERS[path.suffix]
            try:
                yield from read(path)
            except TutelageError:
                raise
            except Exception as error:  # readers raise anything on a damaged file
                raise TutelageError(f"{path} can't be read: {type(error).__name__}: {error}") from error


def samples_of_tar(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the samples of a tar file in the layout of webdataset: consecutive files whose names differ in their end.

    ``0007.jpg`` and ``0007.cls`` are the sample ``{"__key__": "0007", "jpg": image, "cls": 3}``. Images are PIL images,
    ``cls`` and ``index`` integers, ``npy`` arrays, ``json`` what it says, ``txt`` text; others are bytes.

    Raises:
        TutelageError: a member is larger than memory, has holes or is damaged.
    """
    sample: dict[str, Any] = {}
    with tarfile.open(path, "r|*", tarinfo=TarMember) as archive:
        for member in archive:
            if not member.isfile():
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            if sample and sample["__key__"] != key:
                yield sample
                sample = {}
            where = f"{path}: {member.name}"
            if member.issparse():  # a hole of any size is a few bytes
                raise TutelageError(f"{where} has holes; a sample has none")
            check_size(where, member.size)
            file = archive.extractfile(member)
            assert file is not None
            sample |= {"__key__": key, ending: _decoded(where, ending.lower(), file.read())}
    if sample:
        yield sample


def samples_of_npz(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of all arrays of a file as dicts; the file is in memory while it is read.

    Raises:
        TutelageError: it is damaged or larger than memory, or its arrays have different lengths.
    """
    arrays = read_arrays(path, None, "data")
    counts = {name: len(one) for name, one in arrays.items()}
    if len(set(counts.values())) != 1:
        raise TutelageError(f"{path}: its arrays have different lengths: {counts}")
    for row in range(next(iter(counts.values()))):
        yield {name: one[row] for name, one in arrays.items()}


_READERS: dict[str, Callable[[Path], Iterable[Any]]] = {
    ".tar": samples_of_tar, ".parquet": rows_of, ".npz": samples_of_npz,
}  # fmt: skip
_IMAGES = ("jpg", "jpeg", "png", "bmp", "webp", "ppm", "pgm")


def _found(pattern: str) -> list[Path]:
    found = sorted(Path(path) for path in glob.glob(str(pattern), recursive=True))
    if not found:
        raise TutelageError(f"data: there is no file {pattern}")
    return found


def _decoded(where: str, ending: str, content: bytes) -> Any:
    kind = ending.rpartition(".")[2]
    try:
        if kind in _IMAGES:
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                return image
        if kind in ("cls", "index"):
            return int(content)
        if kind == "npy":
            return read_npy(io.BytesIO(content), len(content), where)
        if kind == "json":
            return json.loads(content)
        return content.decode() if kind == "txt" else content
    except TutelageError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error …
        raise TutelageError(f"{where} can't be read ({len(content)} bytes): {error}") from error
