"""Reads the JSON and YAML files of runs as plain values; equal parts of many runs share memory."""

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from tutelage.errors import TutelageError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = _BRACKETS = 60
_ALIASES = 20  # expand to at most about a thousand times the size
_SUSPICIOUS = re.compile(r"(?:^|[\s\[{,:-])\*\w|^ {60}|(?:[-?:]\s+){60}", re.M)


class Documents:
    """Reads files; equal parts of documents, down to single strings, are one object.

    The runs of a sweep differ in a few values only. The documents must not be modified.
    """

    def __init__(self) -> None:
        self._parts: dict[Hashable, Any] = {}

    def read(self, path: Path, kind: type) -> Any:
        """Reads a document with string keys and JSON values.

        Raises:
            TutelageError: it cannot be read, or is not a ``kind``.
        """
        try:
            if not path.is_file():
                raise TutelageError("it is not a file")
            text = path.read_text(encoding="utf-8")
            document = json.loads(text) if path.suffix == ".json" else _yaml(text)
            document = self._shared(document, 0)
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise TutelageError(f"{path.name} can't be read: {str(reason).splitlines()[0]}") from error
        if not isinstance(document, kind):
            raise TutelageError(f"{path.name} can't be read: expected {kind.__name__}")
        return document

    def _shared(self, node: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise TutelageError(f"nested more than {_DEEPEST} levels deep")
        made: Any = node
        key: Hashable
        if isinstance(node, dict):
            made = {self._shared(str(name), depth): self._shared(value, depth + 1) for name, value in node.items()}
            key = (dict, *((id(name), id(value)) for name, value in made.items()))
        elif isinstance(node, list):
            made = [self._shared(value, depth + 1) for value in node]
            key = (list, *map(id, made))
        else:
            is_plain = node is None or isinstance(node, str | int | float)  # YAML knows dates
            is_huge = isinstance(node, int) and abs(node) >= 2**63
            made = node if is_plain and not is_huge else str(node)
            key = (type(made), repr(made))
        return self._parts.setdefault(key, made)


def _yaml(text: str) -> Any:
    """Loads a YAML document; refuses many aliases, which can expand to fill the memory, and deep nesting.

    The C loader is recursive: a nesting of a hundred thousand levels would crash the process.
    """
    if text.count("[") + text.count("{") > _BRACKETS or _SUSPICIOUS.search(text):
        depth = aliases = 0
        for event in yaml.parse(text, _LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise TutelageError(f"nested more than {_DEEPEST} levels deep")
            aliases += isinstance(event, yaml.AliasEvent)
            if aliases > _ALIASES:
                raise TutelageError(f"it has more than {_ALIASES} aliases")
    return yaml.load(text, _LOADER)
