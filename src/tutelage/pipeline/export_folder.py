"""The folder of exported files, which later exports of the same network add to."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.checkpoints.header import is_of_other_weights
from tutelage.errors import TutelageError
from tutelage.runtime import manifest
from tutelage.runtime.files import is_missing
from tutelage.runtime.json_files import read_json

log = logging.getLogger(__name__)

FIGURES = "export.json"


class ExportFolder:
    """A folder for the files of one network.

    Args:
        path: of the folder, which may not exist yet.
        weights: digest of the network's.
        overwrite: whether the files of an export of other weights may be replaced.

    Raises:
        TutelageError: it is a file, or holds something else than an export of these weights; with ``overwrite``, than
            any export.
    """

    def __init__(self, path: Path, weights: str, overwrite: bool):
        self.path, self.weights = path, weights
        if not is_missing(path) and not path.is_dir():
            raise TutelageError(f"output={path} is a file; expected a folder, or none")
        self.old = listed = _listed(path)
        self.earlier = _document(path) if FIGURES in listed else {}
        if listed and FIGURES not in listed:
            raise TutelageError(f"output={path} holds files of a run or an artifact: choose another folder")
        if not overwrite and not self._is_same and not is_missing(path) and any(path.iterdir()):
            held = "an export of other weights" if self.earlier else "something else than an export of this network"
            raise TutelageError(f"output={path} holds {held}: choose another folder, or say overwrite=true")

    @property
    def _is_same(self) -> bool:
        return self.earlier.get("weights") == self.weights

    def formats(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what ``export.json`` has of the formats: of those written now, and of earlier ones that stay.

        Earlier entries stand beside the new ones if they were measured alike: on the same data, with as many threads,
        of files that take the same pixels.

        Args:
            document: of the formats that are written now.
        """
        written: dict[str, Any] = document["formats"]
        kept, earlier = self._kept(), self.earlier.get("formats") or {}
        left = {name: one for name, one in earlier.items() if name not in written and one["file"] in kept}
        if left and _measured(self.earlier) != _measured(document):
            files = ", ".join(one["file"] for one in left.values())
            log.info("%s: %s stay; they were measured on something else, and are not in %s", self.path, files, FIGURES)
            left = {}
        return written | left

    def publish(self, work: Path) -> None:
        """Moves finished files to their place, and lists them with those of the same weights that are there.

        Files of an export of other weights are removed; what no export wrote stays, and is none of the manifest's.

        Args:
            work: a folder that has them.
        """
        names = {path.name for path in work.iterdir() if path.is_file()}
        kept = self._kept()
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / manifest.NAME).unlink(missing_ok=True)
        for name in sorted(set(self.old) - names - kept):
            if self._is_same:
                log.warning("%s is not what was written, and is no longer listed", self.path / name)
            else:
                (self.path / name).unlink(missing_ok=True)
        for name in sorted(names):
            os.replace(work / name, self.path / name)
        manifest.write(self.path, sorted(names | kept))

    def _kept(self) -> set[str]:
        """Returns the files of an earlier export of the same weights that are as they were written."""
        return set(self.old) - manifest.problems(self.path).keys() if self._is_same else set()


def newer_weights(folder: Path) -> Path | None:
    """Returns the file of weights that an export in ``folder`` was made of, if it was written again since."""
    document = _document(folder)
    path = Path(document.get("checkpoint", ""))
    return path if is_of_other_weights(document.get("weights"), path) else None


def _listed(folder: Path) -> list[str]:
    """Returns the files of a manifest that are in its folder itself, as those of an export are."""
    try:
        return [name for name in manifest.read(folder)["files"] if name == Path(name).name]
    except TutelageError:
        return []


def _document(folder: Path) -> dict[str, Any]:
    try:
        manifest.check_file(folder, FIGURES)
        found: dict[str, Any] = read_json(folder / FIGURES)
        return found
    except TutelageError:
        return {}


def _measured(document: Mapping[str, Any]) -> tuple[Any, ...]:
    figures, preprocess = document["trained"]["figures"], document["described"]["preprocess"]
    return document["split"], document["threads"], figures, preprocess
