"""Documents with one thing wrong: every place of a JSON document, with every kind of value that it may not have."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ODD: tuple[Any, ...] = (None, "x", "", -3, 1e308, float("nan"), True, [], ["x"], {}, {"x": "y"}, 10**400, "\x1b[31m")


def spoilt(document: Any) -> Iterator[Any]:
    """Copies of ``document``: one value replaced by something odd, or one key gone."""
    yield from ODD
    for path in _paths(document):
        for odd in ODD:
            yield _with(document, path, odd)
        yield _with(document, path, None, remove=True)


def _paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def _with(document: Any, path: tuple[Any, ...], value: Any, remove: bool = False) -> Any:
    changed = copy.deepcopy(document)
    node = changed
    for key in path[:-1]:
        node = node[key]
    if remove:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return changed


def damages(path: Path) -> Iterator[str]:
    """Damages a text file in ways that are no matter of its content, one after the other; mends it after the last."""
    content = path.read_bytes()
    for name, spoil in {
        "empty": b"", "cut": content[: len(content) // 2], "zeros": bytes(len(content)), "latin": b'{"a": "\xe9"}',
        "deep": b"[" * 100_000, "text": b"no document",
    }.items():  # fmt: skip
        path.write_bytes(spoil)
        yield name
    path.unlink()
    path.mkdir()
    yield "folder"
    path.rmdir()
    path.symlink_to(path.name)
    yield "loop"
    path.unlink()
    path.write_bytes(content)


def write(path: Path, document: Any) -> None:
    """Writes JSON, NaN and all."""
    path.write_text(json.dumps(document))
