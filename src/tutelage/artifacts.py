"""Things that are made once and shared: a trained teacher, a control.

An artifact's folder is named by a digest over everything that made it, so a change of any of it is another artifact and
a stale one is never reused. It is built under a file lock in a hidden folder beside its place, where a build that was
killed goes on, and appears by one rename.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tutelage import distributed
from tutelage.errors import TutelageError
from tutelage.files import locked, sync_folder, write_json

log = logging.getLogger(__name__)


def recipe_digest(recipe: Mapping[str, Any]) -> str:
    """20 hex digits of SHA-256 over the canonical JSON of ``recipe``."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:20]


def place(root: Path, kind: str, recipe: Mapping[str, Any]) -> Path:
    """Where the artifact of ``recipe`` is, once it is made."""
    return root / kind / recipe_digest(recipe)


def make(root: Path, kind: str, recipe: Mapping[str, Any], build: Callable[[Path], None]) -> tuple[Path, bool]:
    """Finds the artifact of ``recipe`` or builds it; one build however many ask at once.

    Args:
        root: folder of all artifacts.
        kind: such as ``teacher``.
        recipe: JSON values that determine the outcome.
        build: fills the folder it is given; after a kill called again on what is there. Every rank calls it.

    Returns:
        The folder, and whether it was there already.
    """
    folder = distributed.broadcast(place(root, kind, recipe))
    work = folder.with_name(f".{folder.name}.work")
    lock = locked(folder.with_name(f".{folder.name}.lock")) if distributed.is_main() else nullcontext()
    if distributed.broadcast(folder.is_dir()):
        return folder, True
    if folder.parent.is_dir() and not os.access(folder.parent, os.W_OK):
        raise TutelageError(
            f"{folder.parent} is not writable, and has no {kind} {folder.name} yet: share it with its owner "
            "(chmod -R g+ws, umask 002), or choose another paths.artifacts"
        )
    with lock:
        if distributed.broadcast(folder.is_dir()):
            log.info("%s %s was built by another job meanwhile", kind, folder.name)
            return folder, True
        if distributed.is_main():
            write_json(work / "recipe.json", recipe)
        build(work)
        if distributed.is_main():
            sync_folder(work)
            os.replace(work, folder)
            sync_folder(folder.parent)
        distributed.barrier()
    return folder, False
