"""Tensors that are made of texts once, and read from disk by a digest of the texts and of what makes them."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from tutelage.checkpoints.weights import digest, serialise
from tutelage.runtime.files import write_atomically

log = logging.getLogger(__name__)

Make = Callable[[Sequence[Any]], dict[str, Tensor]]


def kept(folder: Path | None, recipe: tuple[Any, ...], texts: Sequence[Any], make: Make) -> dict[str, Tensor]:
    """Returns tensors from their file, or makes them and writes it; a damaged file is made again.

    Args:
        folder: None: nothing is kept.
        recipe: what determines the tensors beside the texts.
        texts: what they are made of.
        make: texts → tensors by name.
    """
    if folder is None:
        return make(texts)
    made = hashlib.sha256(repr(recipe).encode())
    for text in texts:
        made.update(repr(text).encode())
    path = folder / f"{made.hexdigest()}.safetensors"
    if (found := _read(path)) is None:
        found = make(texts)
        try:
            write_atomically(path, serialise(found, {"digest": digest(found)}), durable=False)
        except OSError as error:
            log.warning("token ids are not kept: %s (%s)", path, error.strerror)
    return found


def _read(path: Path) -> dict[str, Tensor] | None:
    """Returns a file's tensors; None if there is none or it is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            if digest(found) == file.metadata()["digest"]:
                return found
    except Exception as error:  # safetensors has an exception of its own, not of OSError
        log.warning("%s is damaged (%s) and made again", path, error)
        return None
    log.warning("%s is damaged (another digest) and made again", path)
    return None
