"""Makes token ids of texts: once for a content, then they are read from disk."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from tutelage.checkpoints.weights import digest, serialise
from tutelage.data.text.rows import Rows
from tutelage.data.text.tokenizer import Tokenizer
from tutelage.data.text.tokens import Tokens
from tutelage.errors import TutelageError
from tutelage.runtime.files import write_atomically

log = logging.getLogger(__name__)

_AT_ONCE = 4096  # texts
_VERSION = 1  # of what the files of the cache hold


Make = Callable[[Sequence[Any]], dict[str, Tensor]]


@dataclass(frozen=True)
class Encoder:
    """Makes token ids of texts.

    Args:
        tokenizer: of the library tokenizers.
        max_length: tokens of a text, special ones included.
        truncate: whether longer texts are cut; they are refused otherwise.
        folder: where ids are kept by content; None: nowhere.
    """

    tokenizer: Tokenizer
    max_length: int
    truncate: bool = True
    folder: Path | None = None

    def __call__(self, rows: Rows) -> Tokens:
        """Returns the ids of all texts; of pairs with their segments.

        Raises:
            TutelageError: a text has no token, or too many where they are not cut; names its place.
        """
        recipe = (_VERSION, self.tokenizer.digest, self.max_length if self.truncate else None)
        found = _kept(self.folder, recipe, rows, self._encode)
        tokens = Tokens(found["ids"], found["offsets"], found.get("segments"), None, rows.texts)
        if (empty := (tokens.lengths == 0)).any():
            place = rows.places(int(empty.int().argmax()))
            raise TutelageError(
                f"{place}: {self.tokenizer.name} finds no token in this text: its mask would be all false"
            )
        if (long := tokens.lengths > self.max_length).any():
            row = int(long.int().argmax())
            raise TutelageError(
                f"{rows.places(row)}: {int(tokens.lengths[row])} tokens; data.max_length is {self.max_length} and "
                f"data.truncate=false ({int(long.sum())} of {len(rows)} texts are longer)"
            )
        return tokens

    def _encode(self, texts: Sequence[Any]) -> dict[str, Tensor]:
        ids, segments, lengths = [], [], []
        for one in self.encodings(texts):
            ids.append(np.array(one.ids, np.int32))
            lengths.append(len(one.ids))
            if isinstance(texts[0], tuple):
                segments.append(np.array(one.type_ids, np.uint8))
        found = {"ids": _flat(ids, np.int32), "offsets": torch.tensor([0, *lengths]).cumsum(0)}
        return found | ({"segments": _flat(segments, np.uint8)} if segments else {})

    def encodings(self, texts: Sequence[Any]) -> Iterator[Any]:
        """Yields an encoding of the library for each text, pair of texts or list of words."""
        inner = self.tokenizer.inner
        inner.no_truncation()
        if self.truncate:
            try:
                inner.enable_truncation(self.max_length)
            except Exception as error:  # fewer than the special tokens; the library raises Exception itself
                raise TutelageError(f"data.max_length={self.max_length}: {error}") from error
        words = bool(len(texts)) and isinstance(texts[0], list)
        try:
            for start in range(0, len(texts), _AT_ONCE):
                yield from inner.encode_batch(texts[start : start + _AT_ONCE], is_pretokenized=words)
        finally:
            inner.no_truncation()


def _flat(parts: list[np.ndarray], kind: type) -> Tensor:
    return torch.from_numpy(np.concatenate([*parts, np.zeros(0, kind)]).astype(kind))


def _kept(folder: Path | None, recipe: tuple[Any, ...], rows: Rows, make: Make) -> dict[str, Tensor]:
    """Returns tensors from their file, or makes them and writes it."""
    if folder is None:
        return make(rows.texts)
    made = hashlib.sha256(repr(recipe).encode())
    for text in rows.texts:
        made.update(repr(text).encode())
    path = folder / f"{made.hexdigest()}.safetensors"
    if (found := _read(path)) is None:
        found = make(rows.texts)
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
