"""Files that are whole or not there."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from tutelage.masking import hidden


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Writes beside the final name, syncs, renames: a crash or a full disk leaves the old file or none.

    Not ``durable``, it may be gone after a crash of the machine, at a hundredth of the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames inside ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, document: Any, durable: bool = True) -> None:
    """Writes ``document`` atomically as indented JSON, without secrets (:mod:`tutelage.masking`).

    NaN and infinity are refused, for they are no JSON.
    """
    write_atomically(path, (json.dumps(hidden(document), indent=1, allow_nan=False) + "\n").encode(), durable)


def read_json(path: Path) -> Any:
    """The document in a JSON file."""
    return json.loads(path.read_text())
