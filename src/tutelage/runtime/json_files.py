"""Writes JSON atomically and without secrets; reads it with clear errors."""

import json
import os
from pathlib import Path
from typing import Any

from tutelage.errors import TutelageError
from tutelage.runtime.files import write_atomically
from tutelage.runtime.masking import hidden


def write_json(path: Path, document: Any, durable: bool = True) -> None:
    """Writes ``document`` atomically as indented JSON, without secrets (:mod:`tutelage.runtime.masking`).

    NaN and infinity are refused, as they are not valid JSON.
    """
    write_atomically(path, (json.dumps(hidden(document), indent=1, allow_nan=False) + "\n").encode(), durable)


def overwrite_json(path: Path, document: Any) -> None:
    """Overwrites an existing file in place, which works on a full disk because its blocks are allocated."""
    with open(path, "r+b") as file:
        file.write((json.dumps(hidden(document), indent=1, allow_nan=False) + "\n").encode())
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        TutelageError: it is missing, unreadable or not JSON; names it.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, RecursionError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TutelageError(f"{path} can't be read: {reason}") from error
