"""Stores what is made once and shared: trained teachers, controls, caches.

An artifact's folder is named by a digest of everything that determines its content, so that a stale one is never
reused. It is built under a file lock in a hidden folder next to its final place, where a killed build is resumed, and
published by one rename. Before reuse its checksums are verified; a damaged artifact is set aside and made again.
"""

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from tutelage.errors import TutelageError
from tutelage.runtime import distributed, manifest
from tutelage.runtime.files import locked, recipe_digest, remove_temporary_files, sync_folder
from tutelage.runtime.json_files import read_json, write_json
from tutelage.runtime.masking import masked

log = logging.getLogger(__name__)

ALWAYS = -math.inf  # reuse, whenever it was made
_BEGAN = time.time()


def place(root: Path, kind: str, recipe: Mapping[str, Any]) -> Path:
    """Returns the folder where the artifact of ``recipe`` is, or will be."""
    return root / kind / recipe_digest(recipe)


def oldest(cfg: DictConfig) -> float:
    """Returns the time before which artifacts are not reused; with ``reuse=false`` the command's start.

    It is the time of a file that Hydra writes then, because artifacts are dated by the same file system's clock.
    """
    if cfg.get("reuse", True):
        return ALWAYS
    if not HydraConfig.initialized():
        return _BEGAN
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        written = Path(hydra.sweep.dir) / "multirun.yaml"
    else:
        written = Path(hydra.runtime.output_dir) / ".hydra" / "config.yaml"
    return written.stat().st_mtime if written.is_file() else _BEGAN


def damage(folder: Path, verify: Callable[[Path], None] = manifest.check) -> str:
    """Returns why the artifact of a folder is damaged; an empty string if it is intact.

    Args:
        folder: its place.
        verify: raises a :class:`TutelageError` where it is damaged.
    """
    try:
        verify(folder)
        recipe = read_json(folder / "recipe.json")
        found = folder.name if masked(recipe) else recipe_digest(recipe)
    except (TutelageError, OSError) as error:
        return str(error)
    return "" if found == folder.name else f"{folder} is damaged: its recipe is that of {found}"


def is_usable(folder: Path, since: float = ALWAYS, verify: Callable[[Path], None] = manifest.check) -> bool:
    """Checks whether a folder's artifact exists, was not made before ``since`` (:func:`oldest`) and is undamaged."""
    if not (folder / manifest.NAME).is_file() or (folder / manifest.NAME).stat().st_mtime < since:
        return False
    return not damage(folder, verify)


def make(
    root: Path,
    kind: str,
    recipe: Mapping[str, Any],
    build: Callable[[Path], None],
    since: float = ALWAYS,
    verify: Callable[[Path], None] = manifest.check,
) -> tuple[Path, bool]:
    """Finds the artifact of ``recipe`` or builds it; concurrent callers share one build.

    Args:
        root: folder of all artifacts.
        kind: such as ``teacher``.
        recipe: JSON values that determine the outcome.
        build: fills the given folder; after a kill it is called again on the partial content. Every rank calls it.
        since: older artifacts are not reused (:func:`oldest`).
        verify: raises a :class:`TutelageError` where an artifact that is there is damaged.

    Returns:
        The folder, and whether it existed already.
    """
    # Rank 0's name, but below this rank's own root: machines may mount it in different places.
    folder = root / kind / distributed.broadcast(place(root, kind, recipe).name)
    work = folder.with_name(f".{folder.name}.work")
    lock = locked(folder.with_name(f".{folder.name}.lock")) if distributed.is_main() else nullcontext()
    if distributed.broadcast(is_usable(folder, since, verify)):
        return _found(folder, kind)
    if folder.parent.is_dir() and not os.access(folder.parent, os.W_OK):
        raise TutelageError(
            f"{folder.parent} is not writable, and has no {kind} {folder.name} to reuse: share it with its owner "
            "(chmod -R g+ws, umask 002), or choose another paths.artifacts"
        )
    with lock:
        if distributed.broadcast(is_usable(folder, since, verify)):
            return _found(folder, kind)
        if distributed.is_main():
            if folder.exists() and (why := damage(folder, verify)):
                manifest.set_aside(folder, why)
            remove_temporary_files(work)
            write_json(work / "recipe.json", recipe)
        build(work)
        if distributed.is_main():
            _publish(work, folder)
        distributed.barrier()
    return folder, False


def _found(folder: Path, kind: str) -> tuple[Path, bool]:
    if distributed.is_main():
        log.info("reused %s %s, made on %s", kind, folder.name, manifest.read(folder)["made"])
    return folder, True


def _publish(work: Path, folder: Path) -> None:
    """Publishes a finished folder by one rename; the old one stays usable until then."""
    manifest.write(work)
    sync_folder(work)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        log.info("%s is replaced: reuse=false", folder)
        os.replace(folder, old)
    os.replace(work, folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
