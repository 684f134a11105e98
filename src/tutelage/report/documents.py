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


_SECTION = re.compile(r"^(?=[A-Za-z_]\w*:(?:\s|$))", re.M)  # before a key at the beginning of a line


class Documents:
    """Reads files; equal parts of documents, down to single strings, are one object.

    The runs of a sweep differ in a few values only. The documents must not be modified.
    """

    def __init__(self) -> None:
        self._parts: dict[Hashable, Any] = {}
        self._strings: dict[str, str] = {}
        self._sections: dict[str, Any] = {}  # text of a section of a YAML file → what it says

    def read(self, path: Path, kind: type) -> Any:
        """Reads a document with string keys and JSON values.

        Raises:
            TutelageError: it cannot be read, or is not a ``kind``.
        """
        try:
            if not path.is_file():
                raise TutelageError("it is not a file")
            text = path.read_text(encoding="utf-8")
            document = self._shared(json.loads(text), 0) if path.suffix == ".json" else self._yaml(text)
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise TutelageError(f"{path.name} can't be read: {str(reason).splitlines()[0]}") from error
        if not isinstance(document, kind):
            raise TutelageError(f"{path.name} can't be read: expected {kind.__name__}")
        return document

    def _yaml(self, text: str) -> Any:
        """Loads a YAML document section by section, each text of one once."""
        _check_yaml(text)
        sections = _SECTION.split(text)
        if "&" in text or len(sections) < 2 or sections[0].strip():  # an anchor may be of another section
            return self._shared(yaml.load(text, _LOADER), 0)
        try:
            made: dict[str, Any] = {}
            for section in sections[1:]:
                if section not in self._sections:
                    self._sections[section] = self._shared(yaml.load(section, _LOADER), 0)
                made |= self._sections[section]
        except (TypeError, yaml.YAMLError):  # a value goes on at the beginning of a line
            return self._shared(yaml.load(text, _LOADER), 0)
        return self._parts.setdefault(_key(made), made)

    def _shared(self, node: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise TutelageError(f"nested more than {_DEEPEST} levels deep")
        if type(node) is str:
            return self._strings.setdefault(node, node)
        if node is None or isinstance(node, bool):
            return node
        if isinstance(node, dict):
            strings = self._strings
            made = {
                strings.setdefault(str(name), str(name)): self._shared(value, depth + 1) for name, value in node.items()
            }
            return self._parts.setdefault(_key(made), made)
        if isinstance(node, list):
            several = [self._shared(value, depth + 1) for value in node]
            return self._parts.setdefault((list, *map(id, several)), several)
        is_number = isinstance(node, float) or (isinstance(node, int) and abs(node) < 2**63)
        if not is_number:  # YAML knows dates
            return self._shared(str(node), depth)
        return self._parts.setdefault((type(node), repr(node)), node)


def _key(made: dict[str, Any]) -> Hashable:
    return (dict, *((id(name), id(value)) for name, value in made.items()))


def _check_yaml(text: str) -> None:
    """Refuses many aliases, which can expand to fill the memory, and deep nesting.

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
