"""Lists the images of a folder without opening any. Ignored files are counted, with the reason."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.errors import TutelageError

if TYPE_CHECKING:  # the command line lists folders before it needs torch
    from torch import Tensor

log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

_LIKE_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"}
_SYSTEM = {"__macosx", "thumbs.db", "desktop.ini"}  # of macOS and Windows; others begin with a dot
_LISTED = 20
_told: set[str] = set()


@dataclass
class Listing:
    """Images found in a folder, and ignored files.

    Attributes:
        images: paths below the folder, in ascending order.
        nested: number of them in subfolders.
        ignored: reason → ignored paths.
    """

    images: list[str] = field(default_factory=list)
    nested: int = 0
    ignored: dict[str, list[str]] = field(default_factory=dict)

    def leave(self, reason: str, path: str) -> None:
        """Counts ``path`` as ignored."""
        self.ignored.setdefault(reason, []).append(path)

    def take_over(self, other: "Listing", below: str) -> None:
        """Adds the ignored files of another listing, of the subfolder ``below``."""
        self.nested += other.nested
        for reason, paths in other.ignored.items():
            self.ignored.setdefault(reason, []).extend(os.path.join(below, path) for path in paths)

    def reasons(self) -> str:
        """Returns the ignored files with reasons as text; empty if there are none."""
        return "; ".join(f"{len(paths)} {reason} ({paths[0]})" for reason, paths in sorted(self.ignored.items()))


def list_images(folder: Path) -> Listing:
    """Lists all images in a folder at any depth, by suffix; links are followed, but not in cycles.

    Raises:
        TutelageError: the folder cannot be listed.
    """
    found = Listing()
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(folder),))]
    while waiting:
        below, above = waiting.pop()
        prefix = os.path.join(below, "")
        for entry in _entries(folder / below):
            path = prefix + entry.name
            if is_hidden(entry.name):
                found.leave("hidden or of the system", path)
            elif entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else ""
                if real in above:
                    found.leave("links to a folder that they are in", path)
                else:
                    waiting.append((path, (*above, real or os.path.join(above[-1], entry.name))))
            else:
                _take(found, entry, path)
    found.images.sort()
    return found


def _take(found: Listing, entry: os.DirEntry[str], path: str) -> None:
    dot = entry.name.rfind(".")
    suffix = entry.name[dot:].lower() if dot >= 0 else ""
    if suffix not in SUFFIXES:
        found.leave(f"{suffix or 'without a suffix'}, no image", path)
    elif not entry.is_file():
        found.leave("links that lead nowhere", path)
    else:
        found.images.append(path)
        found.nested += path != entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise TutelageError(f"{folder} can't be listed: {error.strerror}") from error


def is_hidden(name: str) -> bool:
    """Checks whether a file or folder is hidden or the system's, such as ``.DS_Store`` or ``Thumbs.db``."""
    return name.startswith(".") or name.lower() in _SYSTEM


def subfolders(folder: Path) -> list[str]:
    """Lists the subfolders of a folder, without hidden ones, in ascending order."""
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir() and not is_hidden(entry.name))


def files_of(folder: Path) -> list[str]:
    """Lists the files directly in a folder, without hidden ones, in ascending order."""
    return sorted(entry.name for entry in _entries(folder) if not entry.is_dir() and not is_hidden(entry.name))


def split_folders(root: Path) -> dict[str, str]:
    """Returns the folders of ``train``, ``val`` and ``test`` below ``root``; without any, ``train`` is ``root`` itself.

    Raises:
        TutelageError: there is no such folder, several for validation, or no ``train`` beside others.
    """
    if not root.is_dir():
        raise TutelageError(f"data.root={root} is not a folder")
    found = {}
    for split, names in SPLITS.items():
        there = [name for name in names if (root / name).is_dir()]
        if len(there) > 1:
            raise TutelageError(f"{root} has {' and '.join(map(repr, there))}; one of them is to be the {split} split")
        if there:
            found[split] = there[0]
    if found and "train" not in found:
        raise TutelageError(f"{root} has {' and '.join(map(repr, found.values()))} but no 'train' folder")
    return found or {"train": "."}


def class_folders(root: Path) -> list[str]:
    """Returns the names of the classes: the folders of the training images, in ascending order.

    Raises:
        TutelageError: there are fewer than two, or they look like splits.
    """
    train = split_folders(root)["train"]
    names = subfolders(root / train)
    if splits := [name for name in names if name.lower() in _LIKE_SPLITS]:
        raise TutelageError(
            f"{root / train} has the folders {', '.join(splits)}, which look like splits and not like classes; "
            "splits are called train, val (valid, validation) and test"
        )
    if len(names) < 2:
        raise TutelageError(
            f"{root / train}: expected a folder for each of two or more classes; found {names or 'none'}"
        )
    return names


def by_class(names: Sequence[str], labels: "Tensor") -> str:
    """Returns the number of labels [n] of each class as text; of many classes only the smallest and largest."""
    counts = dict(zip(names, labels.bincount(minlength=len(names)).tolist(), strict=True))
    if len(names) <= _LISTED:
        return ", ".join(f"{name} {count}" for name, count in counts.items())
    least, most = (pick(counts, key=counts.__getitem__) for pick in (min, max))
    return f"{len(names)} classes of {counts[least]} ({least}) to {counts[most]} ({most})"


def tell(root: Path, counts: Mapping[str, str], listing: Listing) -> None:
    """Logs a folder's content by split, once in a process, and warns of ignored files."""
    lines = [f"{root}: {split}: {text}" for split, text in counts.items()]
    if listing.nested:
        lines.append(f"{root}: {listing.nested} of the images are in folders within their class's")
    for line in lines:
        if line not in _told:
            log.info("%s", line)
    left_out = f"{root}: left out: {listing.reasons()}"
    if listing.ignored and left_out not in _told:
        log.warning("%s", left_out)
    _told.update([*lines, left_out])
