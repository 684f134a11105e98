"""Reads MNIST and Fashion-MNIST from their raw IDX files."""

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.data.base import ImageData
from tutelage.data.download import download
from tutelage.data.examples import Examples
from tutelage.data.pixels import MemoryPixels
from tutelage.errors import TutelageError, nearest
from tutelage.runtime.file_sizes import check_size
from tutelage.runtime.masking import hide

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MD5 = {  # of the .gz files, in the order of FILES
    "MNIST": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "FashionMNIST": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
}
MIRRORS = {
    "MNIST": (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    ),
    "FashionMNIST": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    ),
}


class IdxImages(ImageData):
    """Reads ``<root>/<dataset>/raw/``, torchvision's layout, packed (.gz) or not.

    LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998); Xiao et al., "Fashion-MNIST" (2017).

    Args:
        root: the folder of all data.
        dataset: ``MNIST`` or ``FashionMNIST``.
        download: whether to download missing files.
        mirrors: addresses of folders to download from, instead of the default ones.
        **common: arguments of :class:`~tutelage.data.base.ImageData`.

    Raises:
        TutelageError: there is no such dataset.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        dataset: str,
        download: bool,
        mirrors: Sequence[str] | None = None,
        **common: Any,
    ):
        super().__init__(**common)
        if dataset not in MD5:
            raise TutelageError(f"data.dataset={dataset!r} is not known; {nearest(dataset, MD5)}")
        self.name, self.download = dataset, download
        self.folder = Path(root).absolute() / dataset / "raw"
        self.mirrors = list(mirrors or MIRRORS[dataset])

    def load(self) -> tuple[Examples, Examples]:
        """Reads the 60,000 training and 10,000 test images, as uint8.

        Raises:
            TutelageError: files are missing and cannot be downloaded, or are damaged.
        """
        self._complete()
        train, test = (
            Examples(MemoryPixels(read_idx(self._find(images), 3)[:, None]), read_idx(self._find(labels), 1))
            for images, labels in FILES.values()
        )
        return train, test

    def _find(self, name: str) -> Path:
        plain = self.folder / name
        return plain if plain.exists() else plain.with_name(f"{name}.gz")

    def _complete(self) -> None:
        names = [name for pair in FILES.values() for name in pair]
        sums = {name: md5 for name, md5 in zip(names, MD5[self.name], strict=True) if not self._find(name).exists()}
        try:
            if sums and not self.download:
                raise TutelageError("data.download=false, so nothing was fetched")
            for name, md5 in sums.items():
                download(f"{name}.gz", md5, self.mirrors, self.folder)
        except (TutelageError, OSError) as error:
            looked_for = [f"{self.folder / name}[.gz]" for name in sums]
            raise TutelageError(
                "\n  ".join([f"{self.name}: files are missing:", *looked_for])
                + f"\n{error}\nSet data.download=true, point data.root at a folder that has {self.name}/raw/, or get "
                f"the .gz files yourself, for instance from {hide(self.mirrors[0])}/, and put them there."
            ) from error


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Reads an IDX file of unsigned bytes, unpacking it if its name ends in .gz.

    The format: two zero bytes, 8 (unsigned byte), the number of dimensions, then each dimension as a big-endian 32-bit
    integer, then the values.

    Args:
        path: the file.
        dimensions: expected number of dimensions: 3 for images, 1 for labels.

    Returns:
        uint8, with ``dimensions`` dimensions.

    Raises:
        TutelageError: names the file, what was expected and what was found.
    """
    header = 4 + 4 * dimensions
    data, cut = _start(path, header)
    if len(data) < header:
        raise TutelageError(f"{path}: expected an IDX header of {header} bytes; found {len(data)}{cut}")
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise TutelageError(f"{path}: expected the magic number 00 00 08 0{dimensions}; found {data[:4].hex(' ')}")
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4)]
    expected = header + math.prod(shape)
    check_size(path, expected)
    data, cut = _start(path, expected + _MORE)
    if len(data) != expected or cut:
        found = f"{len(data)}{cut}" if len(data) < expected + _MORE else f"at least {len(data)}"
        raise TutelageError(f"{path}: expected {expected} bytes for dimensions {shape}; found {found}")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=header)).reshape(shape)


_MORE = 1 << 16  # bytes read beyond the expected end, to report how many follow it


def _start(path: Path, size: int) -> tuple[bytearray, str]:
    """Returns the first ``size`` unpacked bytes of a file, and a remark if a packed file is truncated."""
    if path.suffix == ".gz":
        return _unpack(path, size)
    with path.open("rb") as file:
        return bytearray(file.read(min(size, path.stat().st_size))), ""


def _unpack(path: Path, size: int) -> tuple[bytearray, str]:
    check_size(path, path.stat().st_size)
    packed, unpacker = path.read_bytes(), zlib.decompressobj(wbits=31)  # 31: gzip
    try:
        data = bytearray(unpacker.decompress(packed, size))
    except zlib.error as error:
        raise TutelageError(f"{path}: not a sound gzip file ({len(packed)} bytes): {error}") from error
    if unpacker.unused_data:
        raise TutelageError(f"{path}: {len(unpacker.unused_data)} bytes follow the end of the gzip file")
    is_whole = unpacker.eof or len(data) == size
    return data, "" if is_whole else f" (the gzip file is cut off after {len(packed)} bytes)"
