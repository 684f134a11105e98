"""Blocks of tokens: rows of a fixed length cut from documents, with the next token of each position as its label."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.data.examples import Examples, ExampleSet
from tutelage.data.order import Request
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL, Batch


@dataclass(frozen=True, eq=False)
class Blocks:
    """N blocks of L positions.

    Attributes:
        tokens: [T] int32, all documents, each between two end tokens.
        start: [N] int64, where a block begins in ``tokens``.
        length: [N] int64, from 1 to L: how many of its positions have a next token.
        answer: [N] int64, the first position whose label is of the completion; 0 without a prompt.
        document: [N] int64, the number of its document.
        size: L.
        made_by: digest of the tokenizer.
    """

    tokens: Tensor
    start: Tensor
    length: Tensor
    answer: Tensor
    document: Tensor
    size: int
    made_by: str

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Returns tokens [B, L + 1] int64 of blocks; beyond a block's length they are any."""
        places = self.start[rows, None] + torch.arange(self.size + 1, device=rows.device)
        return self.tokens[places.clamp_(max=len(self.tokens) - 1)].long()

    def valid(self, rows: Tensor) -> Tensor:
        """Returns which positions of blocks have a next token, [B, L] bools."""
        return torch.arange(self.size, device=rows.device) < self.length[rows, None]

    def answers(self, rows: Tensor) -> Tensor:
        """Returns the positions of blocks whose next token is of the completion, [B, L] bools."""
        return self.valid(rows) & (torch.arange(self.size, device=rows.device) >= self.answer[rows, None])

    def labels(self, answers_only: bool) -> Tensor:
        """Returns the labels of all blocks, [N, L] int64: the next token, −100 beyond a block's length."""
        rows = torch.arange(len(self))
        kept = self.answers(rows) if answers_only else self.valid(rows)
        return self[rows][:, 1:].where(kept, NO_LABEL)

    def content(self) -> bytes:
        """Returns digests of tokens and places, and of the tokenizer."""
        parts = (self.tokens, self.start, self.length, self.answer)
        sums = [hashlib.sha256(one.numpy().data).hexdigest() for one in parts]
        return repr((sums, self.size, self.made_by)).encode()

    def moved(self, to: Callable[[Tensor], Tensor]) -> "Blocks":
        """Returns the same blocks with ``to`` applied to each tensor."""
        tokens, start, length, answer = (to(x) for x in (self.tokens, self.start, self.length, self.answer))
        return Blocks(tokens, start, length, answer, to(self.document), self.size, self.made_by)


def cut(documents: Sequence[tuple[list[int] | None, list[int], str]], size: int, end: int, made_by: str) -> Blocks:
    """Cuts documents into blocks, so that every token is the label of one position.

    A document is [end, its tokens, end]; consecutive blocks share the token between them, and none has tokens of two
    documents. A completion stays with its prompt in one block and is cut off at its end.

    Args:
        documents: tokens of the prompt (None without one) and of the text, and the place for messages.
        size: L.
        end: the end token.
        made_by: digest of the tokenizer.

    Raises:
        TutelageError: a prompt leaves no room for its completion.
    """
    tokens: list[int] = []
    rows: list[tuple[int, int, int, int]] = []  # start, length, answer, document
    for number, (prompt, text, place) in enumerate(documents):
        first = len(tokens)
        tokens += [end, *(prompt or ()), *text, end]
        whole = len(tokens) - first - 1
        if prompt is None:
            rows += [(first + at, min(size, whole - at), 0, number) for at in range(0, whole, size)]
            continue
        if len(prompt) >= size:
            raise TutelageError(
                f"{place}: its prompt has {len(prompt)} tokens, and blocks of data.block={size} leave none for the "
                "completion"
            )
        rows.append((first, min(size, whole), len(prompt), number))
    start, length, answer, document = torch.tensor(rows, dtype=torch.long).view(-1, 4).unbind(1)
    columns = (start.contiguous(), length.contiguous(), answer.contiguous(), document.contiguous())
    return Blocks(torch.tensor(tokens, dtype=torch.int32), *columns, size, made_by)


@dataclass(frozen=True, eq=False)
class BlockSet(ExampleSet):
    """A subset of the blocks, fetched batch by batch.

    Args:
        examples: all of them, their pixels being :class:`Blocks`.
        keys: [n] int64, which of them belong to this set; one may come more than once.
        with_answers: whether batches have the field ``answer``.
    """

    with_answers: bool = False
    in_memory: ClassVar[bool] = True
    batch_dim: ClassVar[int] = 0

    @property
    def blocks(self) -> Blocks:
        """Returns all blocks."""
        found = self.examples.pixels
        assert isinstance(found, Blocks)
        return found

    def moved(self, to: Callable[[Tensor], Tensor]) -> "BlockSet":
        """Returns the same set with ``to`` applied to each of its tensors."""
        examples = Examples(self.blocks.moved(to), to(self.examples.labels))
        return replace(self, examples=examples, keys=to(self.keys))

    def __getitem__(self, request: Request) -> Batch:
        """Returns ``input``, ``label`` and ``mask`` [B, L], and ``key`` [B], for (epoch, indices into this set).

        ``mask`` is true for real tokens; with prompts ``answer`` [B, L] is true where the label is of the completion.
        Inputs beyond a block's length are 0.
        """
        _, indices = request
        keys, blocks = self.keys.index_select(0, indices), self.blocks
        mask = blocks.valid(keys)
        found = {"input": blocks[keys][:, :-1].where(mask, 0), "mask": mask}
        if self.with_answers:
            found["answer"] = blocks.answers(keys)
        return {**found, "label": self.examples.labels.index_select(0, keys), "key": keys}
