"""Removes secrets from everything that is written: values of environment variables, and credentials in URLs.

A value that ``${oc.env:NAME}`` gave is replaced by ``(hidden)`` in files, headers, logs and messages. Not hidden,
because a run can't be repeated or found without them, are numbers, values of less than six characters, variables whose
names begin with ``TUTELAGE_``, and what stands in ``paths`` or under a key that names a place (:data:`PLACES`). Of a
URL the part before ``@`` is hidden wherever it stands, and values of parameters such as ``token=``.
"""

import logging
import os
import re
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import Node
from omegaconf.resolvers import oc

from tutelage.compat.hydra import full_key
from tutelage.runtime.text import printable

MASK = "(hidden)"
PLACES = frozenset(
    {
        "artifacts",
        "checkpoint",
        "dir",
        "file",
        "folder",
        "outputs",
        "path",
        "pretrained",
        "root",
        "save_dir",
        "storage",
        "subdir",
    }
)
# Parts of a config whose files are more likely written than read.
WRITERS = ("callbacks", "logger", "trainer")
_SHORTEST = 6  # characters of a secret: shorter ones ("gpu", "auto") are settings, and would be found in other words
_CREDENTIALS = re.compile(r"(?<=://)[^/\s'\"]+(?=@)")
_PARAMETERS = re.compile(
    r"(?<=[?&])([\w.-]*(?:token|key|secret|password|signature|credential)[\w.-]*=)[^&\s'\"]+", re.I
)
_UNRESOLVED = re.compile(r"([^:$]*:)?\$\{oc\.env:[^{}]*\}")


@dataclass
class FromEnvironment:
    """The values of environment variables that this process's configs asked for.

    Attributes:
        secrets: to be hidden.
        settings: keys whose values are paths or addresses, too: not hidden.
    """

    secrets: set[str] = field(default_factory=set)
    settings: set[str] = field(default_factory=set)

    def hidden(self) -> set[str]:
        """Returns what is hidden."""
        return self.secrets - self.settings


_read = FromEnvironment()


def environment(name: str, *default: Any, _node_: Node) -> Any:
    """Resolver ``oc.env``: OmegaConf's own, which also records the values as secrets."""
    value = oc.env(name, *default)
    if value is not None and name in os.environ:
        key = full_key(_node_) if _node_ is not None else ""
        parts = re.sub(r"\[\d+\]", "", key).split(".")
        is_setting = name.startswith("TUTELAGE_") or parts[0] == "paths" or parts[-1] in PLACES
        (_read.settings if is_setting else _read.secrets).add(value)
    return value


def known() -> list[str]:
    """Returns all secrets so far, to be passed to a new process (:func:`remember`)."""
    return sorted(_read.hidden())


def remember(secrets: Iterable[str]) -> None:
    """Hides these values from now on."""
    _read.secrets.update(secrets)


def hide(text: str) -> str:
    """Returns ``text`` without secrets and credentials."""
    for secret in sorted(_read.hidden(), key=len, reverse=True):
        if secret in text and len(secret) >= _SHORTEST and not _is_number(secret):
            text = text.replace(secret, MASK)
    return _without_credentials(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _without_credentials(text: str) -> str:
    if "://" not in text:
        return text
    text = _CREDENTIALS.sub(lambda found: found[0] if _UNRESOLVED.fullmatch(found[0]) else MASK, text)
    return _PARAMETERS.sub(lambda found: found[1] + MASK, text)


def hidden(document: Any) -> Any:
    """Returns a copy of plain values with all secrets hidden; in paths and addresses only credentials are."""
    if isinstance(document, dict):
        return {
            hide(key) if isinstance(key, str) else key: (
                _without_credentials(value) if key in PLACES and isinstance(value, str) else hidden(value)
            )
            for key, value in document.items()
        }
    if isinstance(document, list | tuple):
        return [hidden(value) for value in document]
    return hide(document) if isinstance(document, str) else document


def masked(document: Any, path: str = "") -> str:
    """Returns the dotted path of the first value that contains a secret; empty if there is none."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        if found := masked(value, f"{path}.{key}" if path else str(key)):
            return found
    return path if isinstance(document, str) and MASK in document else ""


def clean(paths: Iterable[Path]) -> None:
    """Hides secrets in text files that others wrote, such as Hydra's record of the command line."""
    from tutelage.runtime.files import write_atomically

    for path in paths:
        if path.is_file() and (safe := hide(text := path.read_text(encoding="utf-8"))) != text:
            write_atomically(path, safe.encode())


def mask_logs() -> None:
    """Removes secrets and escape sequences from all messages and tracebacks of ``logging`` from now on."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, _SafeRecords):
        logging.setLogRecordFactory(_SafeRecords(make))


class _SafeRecords:
    """Makes records as ``make`` does, without secrets and escape sequences."""

    def __init__(self, make: Callable[..., logging.LogRecord]):
        self.make = make

    def __call__(self, *arguments: Any, **more: Any) -> logging.LogRecord:
        record = self.make(*arguments, **more)
        try:
            message = record.getMessage()
        except Exception:  # a wrong format, which logging reports itself
            return record
        if (safe := printable(hide(message))) != message:
            record.msg, record.args = safe, ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = printable(hide("".join(traceback.format_exception(*record.exc_info)).rstrip("\n")))
        return record
