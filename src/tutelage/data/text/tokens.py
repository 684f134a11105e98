"""Texts as token ids, end to end in flat tensors, and the dataset that makes padded batches of them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.data.examples import ExampleSet
from tutelage.data.labels import has_label
from tutelage.data.order import Request
from tutelage.data.text.rewrites import Rewrites
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL, Batch


@dataclass(frozen=True, eq=False)
class Tokens:
    """The token ids of N texts.

    Args:
        ids: [T] int32, all texts end to end.
        offsets: [N + 1] int64: text i has the ids from ``offsets[i]`` to ``offsets[i + 1]``.
        segments: [T] uint8, 0 in the first and 1 in the second text of a pair; None of single texts.
        tags: [T] int32, the label of each token, ``NO_LABEL`` where none counts; None where labels are of whole texts.
        texts: the N texts, to be shown.
        words: [T] int32, of which word of its text a token is, −1 of special ones; None of texts that are no words.
        student: the same texts in the ids of the student's own tokenizer; None where it reads those of the teacher.
    """

    ids: Tensor
    offsets: Tensor
    segments: Tensor | None
    tags: Tensor | None
    texts: Sequence[Any]
    words: Tensor | None = None
    student: "Tokens | None" = None

    def __getitem__(self, rows: Tensor) -> Tensor:
        raise TutelageError("batches of texts are made by TokenSet")

    @property
    def lengths(self) -> Tensor:
        """Returns the number of tokens of each text, [N]."""
        return self.offsets.diff()

    def content(self) -> bytes:
        """Returns a digest of all ids, segments and tags."""
        made = hashlib.sha256()
        for name, x in (("ids", self.ids), ("offsets", self.offsets), ("segments", self.segments), ("tags", self.tags)):
            if x is not None:
                made.update(repr((name, x.dtype, x.shape)).encode() + x.numpy().tobytes())
        if self.student is not None:
            made.update(self.student.content())
        return made.digest()

    def joined(self, others: Sequence["Tokens"]) -> "Tokens":
        """Returns these texts followed by others; what has no second text or tags gets segments 0 and no tags."""
        parts = [self, *others]
        ends = [0, *torch.tensor([len(part.ids) for part in parts]).cumsum(0).tolist()]
        offsets = [part.offsets[1:] + start for part, start in zip(parts, ends, strict=False)]
        segments = [part.segments if part.segments is not None else torch.zeros_like(part.ids, dtype=torch.uint8)
                    for part in parts]  # fmt: skip
        tags = [part.tags if part.tags is not None else torch.full_like(part.ids, NO_LABEL) for part in parts]
        return Tokens(
            torch.cat([part.ids for part in parts]),
            torch.cat([self.offsets[:1], *offsets]),
            None if self.segments is None else torch.cat(segments),
            None if self.tags is None else torch.cat(tags),
            [text for part in parts for text in part.texts],
            student=None if self.student is None else self.student.joined([_known(part.student) for part in others]),
        )


def _known(tokens: Tokens | None) -> Tokens:
    assert tokens is not None  # all texts of a data set have been read by the same tokenizers
    return tokens


@dataclass(frozen=True, eq=False)
class TokenSet(ExampleSet):
    """A subset of the texts, fetched batch by batch.

    Args:
        examples: all of them; their ``pixels`` are :class:`Tokens`.
        keys: [n] int64, which of them belong to this set; one may come more than once.
        pad: id of padding.
        width: tokens of every row; None: those of the batch's longest text.
        rewrites: applied to every batch.
        encode: texts → their ids, where rewrites change words.
        student_pad: id of padding of the student's own tokenizer.
    """

    pad: int
    width: int | None = None
    rewrites: Rewrites | None = None
    encode: Callable[[Sequence[Any]], Tokens] | None = None
    student_pad: int = 0

    @property
    def in_memory(self) -> bool:
        """Returns True: the ids are tensors."""
        return True

    @property
    def tokens(self) -> Tokens:
        """Returns the texts of all examples."""
        assert isinstance(self.examples.pixels, Tokens)
        return self.examples.pixels

    def lengths(self, field: str) -> Tensor:
        """Returns the number of tokens of every example, by key.

        Raises:
            TutelageError: ``field`` has no length.
        """
        if field not in ("input", "mask", "segment"):
            raise TutelageError(
                f"data.sampler.field: texts have lengths in 'input', 'mask' and 'segment'; not {field!r}"
            )
        return self.tokens.lengths

    def __getitem__(self, request: Request) -> Batch:
        """Returns a batch of B texts, L tokens wide, for (epoch, indices into this set).

        ``{"input": [B, L] int64, "mask": [B, L] bool, "label": [B] or [B, L] int64, or [B, 1] float32, "key": [B]}``;
        with ``segment`` [B, L] int64 of pairs, and ``view`` [B] of texts that are rewritten; and with a tokenizer of
        the student's own ``student_input``, ``student_mask`` [B, L'] (and ``student_segment``).
        """
        epoch, indices = request
        keys = self.keys.index_select(0, indices)
        tokens, rows = self._read(keys, epoch)
        batch, at = _padded(tokens, rows, self.pad, self.width)
        mask = batch["mask"]
        if tokens.student is not None:
            own, _ = _padded(tokens.student, rows, self.student_pad, self.width)
            batch |= {f"student_{name}": value for name, value in own.items()}
        batch |= {"label": self.examples.labels.index_select(0, keys), "key": keys}
        if tokens.tags is not None:
            known = mask & has_label(batch["label"])[:, None]
            batch["label"] = torch.where(known, tokens.tags[at].long(), NO_LABEL)
        return self.rewrites(batch, epoch) if self.rewrites else batch

    def _read(self, keys: Tensor, epoch: int) -> tuple[Tokens, Tensor]:
        """Returns token ids, and which of their texts are those of ``keys`` in an epoch's view."""
        if self.rewrites is None or not self.rewrites.changes_words(epoch):
            return self.tokens, keys
        assert self.encode is not None
        texts = [self.rewrites.text(self.tokens.texts[key], key, epoch) for key in keys.tolist()]
        found = self.encode(texts)
        own = found.lengths if found.student is None else found.student.lengths
        if empty := ((found.lengths == 0) | (own == 0)).nonzero().flatten().tolist():  # nothing is in a vocabulary
            texts = [self.tokens.texts[int(keys[row])] if row in empty else text for row, text in enumerate(texts)]
            found = self.encode(texts)
        return found, torch.arange(len(texts))


def _padded(tokens: Tokens, rows: Tensor, pad: int, width: int | None) -> tuple[Batch, Tensor]:
    """Returns ``input``, ``mask`` and perhaps ``segment`` of some texts, and the place of each of their tokens."""
    start, length = tokens.offsets[rows], tokens.lengths[rows]
    place = torch.arange(width or int(length.max()))
    mask = place < length[:, None]
    at = torch.where(mask, start[:, None] + place, 0)
    batch = {"input": torch.where(mask, tokens.ids[at].long(), pad), "mask": mask}
    if tokens.segments is not None:
        batch["segment"] = torch.where(mask, tokens.segments[at].long(), 0)
    return batch, at
