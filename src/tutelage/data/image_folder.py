"""Images in folders, one folder a class, read from disk batch by batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tutelage.data.base import ImageData
from tutelage.data.examples import Examples, divide
from tutelage.errors import TutelageError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
Files = list[tuple[str, int]]  # (path below the root, label)


class ImageFolder(ImageData):
    """``<root>/{train,val,test}/<class>/<image>``, or ``<root>/<class>/<image>``.

    A part without a folder of its own is drawn from the training images: first the test by ``test_size``, then
    validation by ``val_size``, both functions of ``split_seed``. Training keys count the training files that are left
    after the test is drawn, by class and name; the files of a ``val`` folder continue that numbering.

    An image is scaled until it just covers (H, W), and its centre is cut out.

    Args:
        root: the folder.
        test_size: how many images are for the test, or what fraction; only read where there is no ``test`` folder.
        verify: whether to open every file's header before training, rather than meet a bad file in the middle of it.
        **common: arguments of :class:`~tutelage.data.base.ImageData`; the names of the classes are the folders'.

    Raises:
        TutelageError: images must have 1 or 3 channels.
    """

    def __init__(self, *, root: str | Path, test_size: float = 0.1, verify: bool = False, **common: Any):
        super().__init__(**common)
        self.root, self.test_size, self.verify = Path(root).absolute(), test_size, verify
        if self.input_shape[0] not in (1, 3):
            raise TutelageError(f"data.input_shape must have 1 or 3 channels; found {list(self.input_shape)}")

    def load(self) -> tuple[Examples, Examples]:
        """Lists the files; pixels are read when a batch is asked for.

        Raises:
            TutelageError: folders are missing or empty, or their classes don't agree.
        """
        files = self._files()
        if "test" not in files:
            rows = divide(len(files["train"]), self.test_size, "data.test_size", self.split_seed, "test")
            files["train"], files["test"] = ([files["train"][i] for i in part.tolist()] for part in rows)
        val = files.get("val", [])
        self._val_count = len(val)
        return self._examples(files["train"] + val), self._examples(files["test"])

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """The ``val`` folder is for validation; without one it is drawn."""
        if not self._val_count:
            return super().split(count)
        return torch.arange(count - self._val_count), torch.arange(count - self._val_count, count)

    def _files(self) -> dict[str, Files]:
        if not self.root.is_dir():
            raise TutelageError(f"data.root={self.root} is not a folder")
        parts = [part for part in ("train", "val", "test") if (self.root / part).is_dir()]
        if parts and "train" not in parts:
            raise TutelageError(f"{self.root} has {' and '.join(map(repr, parts))} but no 'train' folder")
        folders = {part: part for part in parts} or {"train": "."}
        classes = {part: _classes(self.root / folder) for part, folder in folders.items()}
        self.class_names = classes["train"]
        for part, names in classes.items():
            if names != self.class_names:
                lacks, adds = sorted({*self.class_names} - {*names}), sorted({*names} - {*self.class_names})
                raise TutelageError(
                    f"{self.root}: {part} and train differ in classes: it lacks {lacks} and adds {adds}"
                )
        if len(self.class_names) != self.num_classes:
            raise TutelageError(
                f"{self.root} has {len(self.class_names)} class folders; data.num_classes is {self.num_classes}"
            )
        return {part: self._images(folder) for part, folder in folders.items()}

    def _images(self, folder: str) -> Files:
        files: Files = []
        for label, name in enumerate(self.class_names):
            below = os.path.normpath(os.path.join(folder, name))
            images = sorted(f for f in os.listdir(self.root / below) if os.path.splitext(f)[1].lower() in SUFFIXES)
            if not images:
                raise TutelageError(f"{self.root / below} holds no image ({' '.join(sorted(SUFFIXES))})")
            files += [(os.path.join(below, image), label) for image in images]
        return files

    def _examples(self, files: Files) -> Examples:
        names, labels = zip(*files, strict=True)
        pixels = FilePixels(self.root, np.array([os.fsencode(name) for name in names]), self.input_shape)
        if self.verify:
            for row in range(len(names)):
                pixels.verify(row)
        return Examples(pixels, torch.tensor(labels))


def _classes(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


@dataclass(frozen=True, eq=False)
class FilePixels:
    """Images in files.

    Args:
        root: the folder.
        names: [N] paths below it, as bytes: one array, where a list of strings would be copied into every worker.
        shape: (C, H, W).
    """

    root: Path
    names: np.ndarray
    shape: tuple[int, ...]

    def __getitem__(self, rows: Tensor) -> Tensor:
        images = torch.from_numpy(np.stack([self._decode(row) for row in rows.tolist()]))
        return images.permute(0, 3, 1, 2).contiguous().float().div_(255)

    def content(self) -> bytes:
        """Path, size and time of change of every file."""
        stats = ((name, (self.root / os.fsdecode(name)).stat()) for name in self.names.tolist())
        return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]).encode()

    def verify(self, row: int) -> None:
        """Opens the file without decoding it.

        Raises:
            TutelageError: it is no image.
        """
        with self._open(row):
            pass

    def _decode(self, row: int) -> np.ndarray:
        channels, height, width = self.shape
        with self._open(row) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
            image = image.convert("L" if channels == 1 else "RGB")
            return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)).reshape(
                height, width, -1
            )

    @contextmanager
    def _open(self, row: int) -> Iterator[Image.Image]:
        path = self.root / os.fsdecode(self.names[row])
        try:
            with Image.open(path) as image:
                yield image
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error …
            size = f"{path.stat().st_size} bytes" if path.exists() else "it is gone"
            raise TutelageError(f"{path} (index {row}, {size}) can't be read as an image: {error}") from error
