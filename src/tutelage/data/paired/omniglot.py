"""Omniglot: characters as images and as the pen strokes of the same drawings."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from tutelage import seeding
from tutelage.data.paired.base import PairedData, PairedPart
from tutelage.data.paired.strokes import FEATURES, as_sequence, read_strokes
from tutelage.errors import TutelageError
from tutelage.runtime.file_sizes import check_size

_NAME = re.compile(r"[^/]+/([^/]+)/character(\d+)/\d+_(\d+)\.(?:png|txt)")
_SIDE = 105  # pixels of an image
_LARGEST = 1 << 20  # bytes of one unpacked file


class Omniglot(PairedData):
    """Lake et al., "Human-level concept learning through probabilistic program induction" (2015), a small set.

    Two zips of the same paths, ``<set>/<alphabet>/character<NN>/<NNNN>_<drawer>.png`` and ``.txt``. A batch has
    ``input``, the image [B, 1, H, W] with ink 1, ``strokes`` [B, L, 5] and ``strokes_mask`` [B, L]
    (:func:`~tutelage.data.paired.strokes.as_sequence`). A class is a character of an alphabet. Each character was drawn
    by twenty people: validation and test are drawings of people who drew nothing of the training set.

    Args:
        images: the zip of images.
        strokes: the zip of strokes.
        strokes_shape: [L, 5], L the most points of a drawing.
        spacing: pixels, of 105, between two points of a stroke.
        val_drawers: number of each character's drawers whose drawings are for validation, chosen with ``split_seed``.
        test_drawers: number of drawers for the test, the same whatever the seeds.
        alphabets: the only ones to use; null: all.
        num_classes: characters; null: those found.
        **common: arguments of :class:`~tutelage.data.paired.base.PairedData`.

    Raises:
        TutelageError: a file is missing, damaged or without its counterpart, or an argument is out of range.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("mean", "std", "strokes_shape", "spacing")

    def __init__(
        self,
        *,
        images: str | Path,
        strokes: str | Path,
        strokes_shape: Sequence[int] = (96, FEATURES),
        spacing: float = 4.0,
        val_drawers: int = 3,
        test_drawers: int = 5,
        alphabets: Sequence[str] | None = None,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        split_seed: int = 0,
        **common: Any,
    ):
        if len(strokes_shape) != 2 or strokes_shape[0] < 2 or strokes_shape[1] != FEATURES:
            raise TutelageError(
                f"data.strokes_shape must be [points, {FEATURES}], at least 2 points; found {[*strokes_shape]}"
            )
        if not spacing > 0:
            raise TutelageError(f"data.spacing must be above 0 pixels; found {spacing}")
        self.length, self.spacing = strokes_shape[0], float(spacing)
        self.files = {"data.images": Path(images), "data.strokes": Path(strokes)}
        self.names = self._common_names(alphabets)
        classes = list(dict.fromkeys(f"{alphabet} {character}" for alphabet, character, _ in self.names))
        if num_classes not in (None, len(classes)):
            raise TutelageError(f"data.num_classes={num_classes}: the files have {len(classes)} characters")
        self._labels = torch.tensor([classes.index(f"{alphabet} {number}") for alphabet, number, _ in self.names])
        drawers = sorted({drawer for *_, drawer in self.names})
        self.parts = drawn_apart(drawers, {"val": val_drawers, "test": test_drawers}, split_seed)
        super().__init__(
            num_classes=len(classes), class_names=class_names or classes, val_size=val_drawers, split_seed=split_seed,
            **common,
        )  # fmt: skip

    def pairs(self) -> tuple[PairedPart, PairedPart]:
        """Returns drawings of training, then of validation, and of the test."""
        drawer = torch.tensor([one for *_, one in self.names])
        rows = {part: torch.isin(drawer, torch.tensor(own)).nonzero().flatten() for part, own in self.parts.items()}
        self._sizes = [len(rows[part]) for part in ("train", "val")]
        fields = self._fields()
        both = torch.cat([rows["train"], rows["val"]])
        train, test = (
            PairedPart({name: field[own] for name, field in fields.items()}, self._labels[own])
            for own in (both, rows["test"])
        )
        return train, test

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns the keys of training and validation, whose drawers are others."""
        first = self._sizes[0]
        return torch.arange(first), torch.arange(first, count)

    def _fields(self) -> dict[str, Tensor]:
        drawings, sequences, masks = [], [], []
        for (path, png), (own, text) in zip(self._read("data.images"), self._read("data.strokes"), strict=True):
            drawings.append(_ink(png, path))
            sequence, mask = as_sequence(
                read_strokes(text.decode("ascii", "replace"), own), self.length, self.spacing, _SIDE
            )
            sequences.append(sequence)
            masks.append(mask)
        ink = torch.from_numpy(np.stack(drawings))[:, None]
        return {
            "input": F.interpolate(ink, self.input_shape[1:], mode="area"),
            "strokes": torch.from_numpy(np.stack(sequences)),
            "strokes_mask": torch.from_numpy(np.stack(masks)),
        }

    def _read(self, key: str) -> Iterator[tuple[str, bytes]]:
        """Yields the path and content of every drawing, in the order of the keys."""
        path = self.files[key]
        try:
            with zipfile.ZipFile(path) as archive:
                found = _drawings(archive)
                for name in self.names:
                    inner = found[name]
                    if (size := archive.getinfo(inner).file_size) > _LARGEST:
                        raise TutelageError(f"{path}: {inner} has {size} bytes; expected at most {_LARGEST}")
                    yield f"{path}: {inner}", archive.read(inner)
        except (OSError, zipfile.BadZipFile, zlib.error) as error:
            raise TutelageError(f"{path}: not a sound zip file: {error}") from error

    def _common_names(self, alphabets: Sequence[str] | None) -> list[tuple[str, int, int]]:
        found = {}
        for key, path in self.files.items():
            if not path.is_file():
                raise TutelageError(
                    f"{key}: there is no file {path}; omni_images_background_small1.zip and "
                    "omni_strokes_background_small1.zip are in https://github.com/brendenlake/omniglot"
                )
            check_size(path, path.stat().st_size)
            try:
                with zipfile.ZipFile(path) as archive:
                    found[key] = _drawings(archive)
            except (OSError, zipfile.BadZipFile) as error:
                raise TutelageError(f"{path}: not a sound zip file: {error}") from error
        images, strokes = (set(one) for one in found.values())
        if images != strokes or not images:
            alone = sorted(images ^ strokes)
            what = f"{alone[0][0]} character {alone[0][1]} drawer {alone[0][2]}" if alone else "no drawing at all"
            raise TutelageError(
                f"data.images and data.strokes: {len(alone)} drawings are in one of the files only; the first: {what}"
            )
        known = sorted({alphabet for alphabet, *_ in images})
        if unknown := sorted(set(alphabets or ()) - set(known)):
            raise TutelageError(f"data.alphabets: no alphabet {unknown[0]!r}; known: {', '.join(known)}")
        return sorted(name for name in images if alphabets is None or name[0] in alphabets)


def _drawings(archive: zipfile.ZipFile) -> dict[tuple[str, int, int], str]:
    """Returns (alphabet, character, drawer) → path in the archive; other files in it do not count."""
    matches = ((_NAME.fullmatch(path), path) for path in archive.namelist() if not path.startswith("__MACOSX"))
    return {(found[1], int(found[2]), int(found[3])): path for found, path in matches if found}


def _ink(png: bytes, path: str) -> np.ndarray:
    """Returns [105, 105] float32, 1 where the black ink is."""
    try:
        image = Image.open(io.BytesIO(png))
        if image.size != (_SIDE, _SIDE):
            raise TutelageError(f"{path}: expected an image of {_SIDE}×{_SIDE}; found {image.size}")
        return 1 - np.asarray(image.convert("L"), dtype=np.float32) / 255
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise TutelageError(f"{path}: not a sound image: {error}") from error


def drawn_apart(drawers: Sequence[int], counts: dict[str, int], split_seed: int) -> dict[str, list[int]]:
    """Divides drawers among training, validation and test.

    Args:
        drawers: all of them.
        counts: numbers for ``val`` and ``test``.
        split_seed: of the validation's; the test's are always the same.

    Raises:
        TutelageError: a number is out of range, or leaves no drawer for training.
    """
    for part, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise TutelageError(f"data.{part}_drawers must be a whole number of at least 1; found {count!r}")
    if sum(counts.values()) >= len(drawers):
        raise TutelageError(
            f"data.val_drawers={counts['val']} and data.test_drawers={counts['test']} of {len(drawers)} drawers: "
            "none is left for training"
        )
    order = torch.randperm(len(drawers), generator=seeding.generator("omniglot", "test")).tolist()
    test, rest = order[: counts["test"]], sorted(order[counts["test"] :])
    chosen = torch.randperm(len(rest), generator=seeding.generator(split_seed, "val")).tolist()[: counts["val"]]
    val = [rest[place] for place in chosen]
    train = [place for place in rest if place not in val]
    return {
        part: sorted(drawers[place] for place in own) for part, own in (("train", train), ("val", val), ("test", test))
    }
