"""Training images that were made: those of an artifact of ``tutelage condense``."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tutelage.data.examples import Examples
from tutelage.data.pixels import MemoryPixels
from tutelage.errors import TutelageError
from tutelage.runtime import manifest

FILE = "images.safetensors"


def contents(images: Tensor, labels: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """Returns the tensors of the file: ``input`` [n, C, H, W] float32 in units of pixels, ``label``, ``target``."""
    return {"input": images.float().contiguous(), "label": labels, "target": targets.float().contiguous()}


def read_made(folder: Path, shape: tuple[int, ...], classes: int | None) -> Examples:
    """Returns the images of an artifact with the classes of their labels.

    Args:
        folder: of the artifact, or a link to it.
        shape: (C, H, W) of the data.
        classes: of the data.

    Raises:
        TutelageError: there is no such folder, it is damaged, or the images are of other data.
    """
    if not folder.is_dir():
        raise TutelageError(f"data.made: there is no folder {folder}; `tutelage condense` makes it and says its name")
    manifest.check(folder)
    try:
        found = load_file(folder / FILE)
        images, labels = found["input"], found["label"]
    except (OSError, KeyError, SafetensorError) as error:
        raise TutelageError(f"data.made: {folder / FILE} is no file of condensed images: {error}") from error
    if tuple(images.shape[1:]) != tuple(shape):
        raise TutelageError(f"data.made: images of {folder} are {list(images.shape[1:])}; the data's are {list(shape)}")
    if classes is None or int(labels.max()) >= classes or int(labels.min()) < 0:
        raise TutelageError(
            f"data.made: labels of {folder} are {int(labels.min())} to {int(labels.max())}; the data have "
            + (f"{classes} classes" if classes else "no classes")
        )
    if not bool(images.isfinite().all()):
        raise TutelageError(f"data.made: an image of {folder} is not finite")
    return Examples(MemoryPixels(images), labels.to(torch.int64))
