"""Reads additional unlabelled images: a folder, an IDX file, an array in an .npz."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tutelage.data.augment import Pixels
from tutelage.data.examples import Examples
from tutelage.data.file_names import FileNames
from tutelage.data.folder_scan import SUFFIXES, list_images, tell
from tutelage.data.idx import read_idx
from tutelage.data.image_folder import FilePixels
from tutelage.data.npz import read_arrays
from tutelage.data.pixels import MemoryPixels
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL


class Folder:
    """All images in a folder, at any depth, in the order of their paths; read from disk batch by batch.

    An image is scaled to cover (H, W) and cropped at the centre; converted to grey for one channel.

    Args:
        root: the folder.
        verify: whether to open every file's header before training.
    """

    def __init__(self, *, root: str | Path, verify: bool = False):
        self.root, self.verify = Path(root).absolute(), verify

    def load(self, shape: tuple[int, ...]) -> Examples:
        """Lists the files; pixels are read batch by batch.

        Raises:
            TutelageError: no such folder, no image in it, or a ``shape`` that is neither grey nor in colour.
        """
        if shape[0] not in (1, 3):
            raise TutelageError(f"{self.root}: pictures have 1 or 3 channels; data.input_shape is {list(shape)}")
        if not self.root.is_dir():
            raise TutelageError(f"data.unlabelled: {self.root} is not a folder")
        found = list_images(self.root)
        names, found.nested = found.images, 0
        if not names:
            why = f"; it has {found.reasons()}" if found.ignored else ""
            raise TutelageError(f"{self.root} holds no image at any depth ({' '.join(sorted(SUFFIXES))}){why}")
        tell(self.root, {"unlabelled": f"{len(names)} images"}, found)
        pixels = FilePixels(self.root, FileNames(names), shape)
        if self.verify:
            for row in range(len(names)):
                pixels.verify(row)
        return _bare(pixels, len(names))


class Idx:
    """The images of an IDX file of unsigned bytes, such as MNIST's.

    Args:
        path: the file, gzipped if its name ends in .gz.
    """

    def __init__(self, *, path: str | Path):
        self.path = Path(path).absolute()

    def load(self, shape: tuple[int, ...]) -> Examples:
        """Returns all images as unlabelled examples.

        Raises:
            TutelageError: the file is missing, damaged or empty, or its images have another shape.
        """
        if not self.path.is_file():
            raise TutelageError(f"data.unlabelled: there is no file {self.path}")
        return _in_memory(str(self.path), read_idx(self.path, 3)[:, None], shape)


class Npz:
    """One array of a NumPy archive: [N, C, H, W], or [N, H, W] of one channel; uint8, or floats in [0, 1].

    Args:
        path: the file.
        array: its name in the archive.
    """

    def __init__(self, *, path: str | Path, array: str):
        self.path, self.array = Path(path).absolute(), array

    def load(self, shape: tuple[int, ...]) -> Examples:
        """Returns all images as unlabelled examples.

        Raises:
            TutelageError: the file is missing or damaged, or has no such array; the array has another shape or type,
                or numbers outside [0, 1].
        """
        where = f"{self.path}, array {self.array!r}"
        images = read_arrays(self.path, [self.array], "data.unlabelled")[self.array]
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise TutelageError(f"{where}: expected uint8, or floats in [0, 1]; found {images.dtype}")
        found = torch.from_numpy(images if images.dtype == np.uint8 else images.astype(np.float32))
        examples = _in_memory(where, found[:, None] if found.ndim == 3 else found, shape)
        if found.is_floating_point():
            _check_range(where, found)
        return examples


def _in_memory(where: str, images: Tensor, shape: tuple[int, ...]) -> Examples:
    if tuple(images.shape[1:]) != shape:
        raise TutelageError(
            f"{where}: expected images of shape {list(shape)} (data.input_shape); found {list(images.shape[1:])}"
        )
    if not len(images):
        raise TutelageError(f"{where}: it holds no image")
    return _bare(MemoryPixels(images), len(images))


def _check_range(where: str, images: Tensor) -> None:
    outside = ~((images >= 0) & (images <= 1)).flatten(1).all(1)  # NaN as well
    if outside.any():
        row = int(outside.int().argmax())
        low, high = (float(x) for x in images[row].aminmax())
        raise TutelageError(
            f"{where}: expected floats in [0, 1]; found {low:g} … {high:g} at index {row} "
            f"({int(outside.sum())} of {len(images)} images have such numbers)"
        )


def _bare(pixels: Pixels, count: int) -> Examples:
    return Examples(pixels, torch.full((count,), NO_LABEL))
