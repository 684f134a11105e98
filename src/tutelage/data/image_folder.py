"""Images in folders, one folder per class, read from disk batch by batch."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutelage.data.augment import Crop
from tutelage.data.base import ImageData
from tutelage.data.examples import Examples, divide
from tutelage.data.file_names import FileNames
from tutelage.data.floats import as_floats
from tutelage.data.folder_scan import (
    SUFFIXES,
    Listing,
    by_class,
    class_folders,
    files_of,
    list_images,
    split_folders,
    subfolders,
    tell,
)
from tutelage.data.jpeg import decoded
from tutelage.data.pil_images import draft, fitted, reduction
from tutelage.errors import TutelageError


class ImageFolder(ImageData):
    """Reads ``<root>/{train,val,test}/<class>/<image>``, or ``<root>/<class>/<image>``, at any depth below a class.

    ``val`` may be called ``valid`` or ``validation``. A split without a folder is drawn from the training
    images: first test by ``test_size``, then validation by ``val_size``, both functions of ``split_seed``. Training
    keys number the training files that remain after test is drawn, by class and name; the files of a ``val``
    folder continue that numbering. The log has the counts by split and class, and the ignored files with reasons.

    An image is scaled to cover (H, W), or until its short side is ``resize``, and cropped at the centre. 16 bits become
    8, transparent images are composed over white, CMYK and palettes become RGB; animations and more than 16 bits are
    refused.

    Args:
        root: the folder.
        num_classes: by default the number of folders.
        class_names: the folders in the order of their labels; by default alphabetical.
        test_size: number (below 1: fraction) of test images if there is no ``test`` folder.
        verify: whether to open every file's header before training, to detect bad files early.
        resize: pixels of an image's short side before its centre is taken, at least H and W; null: as few as cover
            both. A random crop is taken of the file's own pixels in any case.
        **common: arguments of :class:`~tutelage.data.base.ImageData`.

    Raises:
        TutelageError: images must have 1 or 3 channels; ``resize`` is no such number.
    """

    seen_through: ClassVar[tuple[str, ...]] = (*ImageData.seen_through, "resize")

    def __init__(
        self,
        *,
        root: str | Path,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        test_size: float = 0.1,
        verify: bool = False,
        resize: int | None = None,
        **common: Any,
    ):
        self.root, self.test_size, self.verify = Path(root).absolute(), test_size, verify
        classes = len(class_folders(self.root)) if num_classes is None else num_classes
        self._ordered = None if class_names is None else [str(name) for name in class_names]
        super().__init__(num_classes=classes, class_names=self._ordered, **common)
        if self.input_shape[0] not in (1, 3):
            raise TutelageError(f"data.input_shape must have 1 or 3 channels; found {list(self.input_shape)}")
        least = max(self.input_shape[1:])
        if resize is not None and (type(resize) is not int or resize < least):
            raise TutelageError(
                f"data.resize must be a whole number of at least {least} pixels (data.input_shape), or null; found "
                f"{resize!r}"
            )
        self.resize = resize

    def load(self) -> tuple[Examples, Examples]:
        """Lists the files; pixels are read batch by batch.

        Raises:
            TutelageError: folders are missing or empty, or their classes don't agree.
        """
        files, labels = FileNames(), []
        parts: dict[str, Tensor] = {}
        for part, folder in self._folders().items():
            start = len(files)
            labels += [torch.full((count,), label) for label, count in enumerate(self._append(files, folder))]
            parts[part] = torch.arange(start, len(files))
        if "test" not in parts:
            rows = divide(len(parts["train"]), self.test_size, "data.test_size", self.split_seed, "test")
            parts["train"], parts["test"] = (parts["train"][part] for part in rows)
        self._val_count = len(parts.get("val", ()))
        known = torch.cat(labels)
        self._labels = {part: known[rows] for part, rows in parts.items()}
        for_training = torch.cat([parts[part] for part in ("train", "val") if part in parts])
        train, test = (self._examples(files.take(rows), known[rows]) for rows in (for_training, parts["test"]))
        return train, test

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """Uses the ``val`` folder for validation, or draws it from the training images."""
        if self._val_count:
            train, val = torch.arange(count - self._val_count), torch.arange(count - self._val_count, count)
        else:
            train, val = super().split(count)
        labels = torch.cat([self._labels[part] for part in ("train", "val") if part in self._labels])
        own = {"train": labels[train], "val": labels[val], "test": self._labels["test"]}
        counts = {part: f"{len(some)} images: {by_class(self.class_names, some)}" for part, some in own.items()}
        tell(self.root, counts, self._left)
        return train, val

    def _folders(self) -> dict[str, str]:
        folders, found = split_folders(self.root), class_folders(self.root)
        if len(found) != self.num_classes:
            raise TutelageError(f"{self.root} has {len(found)} class folders; data.num_classes is {self.num_classes}")
        self.class_names, self._left = self._ordered or found, Listing()
        _check_same("data.class_names and the class folders", self.class_names, found, self.root)
        if folders["train"] != ".":
            for name in sorted({*subfolders(self.root)} - {*folders.values()}):
                self._left.leave("folders beside the splits", name)
        return folders

    def _append(self, files: FileNames, folder: str) -> Iterator[int]:
        """Appends the images of a split, class by class, and yields their numbers."""
        _check_same(f"{folder} and train", subfolders(self.root / folder), self.class_names, self.root)
        for name in files_of(self.root / folder):
            self._left.leave("files in no class's folder", os.path.normpath(os.path.join(folder, name)))
        for name in self.class_names:
            below = os.path.normpath(os.path.join(folder, name))
            found = list_images(self.root / below)
            if not found.images:
                why = f"; it has {found.reasons()}" if found.ignored else ""
                raise TutelageError(f"{self.root / below} holds no image ({' '.join(sorted(SUFFIXES))}){why}")
            self._left.take_over(found, below)
            files.extend(below, found.images)
            yield len(found.images)

    def _examples(self, files: FileNames, labels: Tensor) -> Examples:
        pixels = FilePixels(self.root, files, self.input_shape, self.resize)
        if self.verify:
            for row in range(len(files)):
                pixels.verify(row)
        return Examples(pixels, labels)


def _check_same(what: str, names: Sequence[str], expected: Sequence[str], root: Path) -> None:
    lacks, adds = sorted({*expected} - {*names}), sorted({*names} - {*expected})
    if lacks or adds or len(names) != len(expected):
        raise TutelageError(f"{root}: {what} differ in classes: it lacks {lacks} and adds {adds}")


@dataclass(frozen=True, eq=False)
class FilePixels:
    """Images in files.

    Args:
        root: the folder.
        names: N paths below it.
        shape: (C, H, W).
        resize: pixels of the short side before (H, W) are taken of the centre; None: as few as cover them.
    """

    root: Path
    names: FileNames
    shape: tuple[int, ...]
    resize: int | None = None

    def __getitem__(self, rows: Tensor) -> Tensor:
        images = torch.from_numpy(np.stack([self._decode(row) for row in rows.tolist()]))
        return as_floats(images.permute(0, 3, 1, 2))

    def cropped(self, rows: Tensor, crop: Crop, chance: Tensor) -> Tensor:
        """Returns parts of the images, uint8, of the files' own pixels; a file is decoded once for neighbours."""
        images = torch.empty(len(rows), *self.shape, dtype=torch.uint8)
        reader = _Parts(self, crop)
        for place, (row, numbers) in enumerate(zip(rows.tolist(), chance.tolist(), strict=True)):
            images[place] = reader.part(row, numbers)
        return images

    def content(self) -> bytes:
        """Returns a digest of path, size and modification time of every file."""
        return self.names.content(self.root)

    def verify(self, row: int) -> None:
        """Opens the file without decoding it.

        Raises:
            TutelageError: it is no image.
        """
        with self.open(row):
            pass

    def _decode(self, row: int) -> np.ndarray:
        with self.open(row) as image:
            return fitted(image, self.shape, self.resize)

    @contextmanager
    def open(self, row: int) -> Iterator[Image.Image]:
        """Opens a file; what fails in it names the file.

        Raises:
            TutelageError: it can't be read as an image.
        """
        path = self.root / self.names[row]
        try:
            with Image.open(path) as image:
                yield image
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error …
            size = f"{path.stat().st_size} bytes" if path.exists() else "it is gone"
            raise TutelageError(f"{path} (index {row}, {size}) can't be read as an image: {error}") from error


class _Parts:
    """Takes parts of images in files, and keeps the last one decoded: views of the same image follow each other."""

    def __init__(self, pixels: FilePixels, crop: Crop):
        self.pixels, self.crop, self.row = pixels, crop, -1
        self.target = pixels.shape[1], pixels.shape[2]

    def part(self, row: int, chance: Sequence[float]) -> Tensor:
        """Returns the part of image ``row`` [C, H, W] that the random numbers choose, as uint8."""
        box = self.crop.box(*self.size, chance) if row == self.row else None
        if box is None or reduction(box[2:], self.target) not in self.images:
            box = self._decode(row, chance)
        top, left, height, width = box
        image, times = self.images[reduction((height, width), self.target)]
        if times > 1:  # the box in whole pixels of the smaller image
            height, width = max(1, round(height / times)), max(1, round(width / times))
            top = min(round(top / times), image.shape[1] - height)
            left = min(round(left / times), image.shape[2] - width)
        part = image[None, :, top : top + height, left : left + width]
        part = part.contiguous(memory_format=torch.channels_last)[0]  # as it is scaled fastest
        return self.crop.scaled(part, self.target, chance)

    def _decode(self, row: int, chance: Sequence[float]) -> tuple[int, int, int, int]:
        """Decodes image ``row`` as large as the part needs it; returns the box of the part."""
        with self.pixels.open(row) as image:
            if row != self.row:
                self.row, self.size = row, (image.height, image.width)
                self.images: dict[int, tuple[Tensor, int]] = {}  # wanted reduction → image, how much smaller
            box = self.crop.box(*self.size, chance)
            wanted = reduction(box[2:], self.target)
            times = draft(image, wanted)
            self.images[wanted] = decoded(image, self.pixels.shape[0], times == 1), times
            return box
