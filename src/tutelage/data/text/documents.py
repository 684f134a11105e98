"""Documents of a corpus: text files, and JSON lines with a text or with a prompt and its completion."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from tutelage.data.folder_scan import is_hidden
from tutelage.errors import TutelageError, nearest

LINES = (".jsonl", ".ndjson")  # suffixes of files with one JSON object a line
FIELDS = ("text", "prompt", "completion")


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        text: all of it, or the completion of ``prompt``.
        prompt: what the text answers; None without one.
        place: file, and line where it has several, for messages.
    """

    text: str
    prompt: str | None
    place: str


def list_files(root: Path, patterns: Sequence[str], key: str) -> list[Path]:
    """Lists the files of a corpus: ``root`` itself, or those below it that match a pattern, in ascending order.

    Args:
        root: a file or a folder.
        patterns: such as ``**/*.txt``; hidden files and folders are left out.
        key: of ``root`` in the config, for messages.

    Raises:
        TutelageError: there is no such file.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise TutelageError(f"{key}={root} is neither a file nor a folder; it should hold the texts of the corpus")
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    files = sorted(path for path in found if not any(map(is_hidden, path.relative_to(root).parts)))
    if not files:
        raise TutelageError(f"{key}={root} has no file that matches data.files={list(patterns)}")
    return files


def read(
    files: Sequence[Path], encoding: str, separator: str | None, fields: Mapping[str, str]
) -> tuple[list[Document], int]:
    """Returns the documents of files in their order, and how many empty texts were left out.

    Args:
        files: text files, one document each; JSON lines (``.jsonl``, ``.ndjson``), one document a line.
        encoding: of all files.
        separator: text between the documents of a text file, a backslash and n being a line's end; None: a file is one
            document.
        fields: of a JSON object: ``text``, or ``prompt`` and ``completion`` → the names that they have there.

    Raises:
        TutelageError: a file can't be decoded, a line is no JSON object with these fields; names file and line.
    """
    names = {name: name for name in FIELDS} | dict(fields)
    for name, other in combinations(FIELDS, 2):
        if names[name] is not None and names[name] == names[other]:
            raise TutelageError(
                f"data.fields: {name} and {other} both are {names[name]!r}; null leaves one out: "
                "data.fields={text: …, prompt: null, completion: null}"
            )
    found = [one for file in files for one in _of_file(file, encoding, separator, names)]
    whole = [one for one in found if one.text.strip()]
    return whole, len(found) - len(whole)


def _of_file(file: Path, encoding: str, separator: str | None, fields: Mapping[str, str]) -> Iterator[Document]:
    text = _decoded(file, encoding)
    if file.suffix.lower() in LINES:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield _of_line(line, f"{file}:{number}", fields)
    elif separator is None:
        yield Document(text, None, str(file))
    else:
        between = separator.replace("\\n", "\n").replace("\\t", "\t")  # a command line has no escapes
        for number, part in enumerate(text.split(between), 1):
            yield Document(part, None, f"{file}, document {number}")


def _decoded(file: Path, encoding: str) -> str:
    try:
        return file.read_bytes().decode(encoding).replace("\r\n", "\n")
    except LookupError:
        raise TutelageError(f"data.encoding={encoding}: Python knows no such encoding") from None
    except UnicodeDecodeError as error:
        raise TutelageError(
            f"{file} is not {encoding}: byte {error.start} can't be decoded ({error.reason}); set data.encoding"
        ) from error


def _of_line(line: str, place: str, fields: Mapping[str, str]) -> Document:
    try:
        found: Any = json.loads(line)
    except ValueError as error:
        raise TutelageError(f"{place} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise TutelageError(f"{place}: expected a JSON object; found {type(found).__name__}")
    names = ("prompt", "completion") if fields["prompt"] in found else ("text",)
    values = [_text(found, fields[name], place) for name in names]
    if len(values) == 1:
        return Document(values[0], None, place)
    if not values[1].strip():
        raise TutelageError(f"{place}: its {fields['completion']!r} is empty; nothing would be learned from it")
    return Document(values[1], values[0], place)


def _text(found: Mapping[str, Any], name: str, place: str) -> str:
    value = found.get(name)
    if isinstance(value, str):
        return value
    if name in found:
        raise TutelageError(f"{place}: {name!r} must be a text; found {type(value).__name__}")
    raise TutelageError(
        f"{place} has no {name!r}; {nearest(name, found)} (data.fields={{prompt: …, completion: …}} or {{text: …}} "
        "says which is which)"
    )
