"""A corpus for a language model: blocks of tokens, whose labels are the next tokens."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.data.examples import Examples, divide
from tutelage.data.labels import checked_labels
from tutelage.data.module import Data
from tutelage.data.text.blocks import Blocks, BlockSet, cut
from tutelage.data.text.documents import Document, list_files, read
from tutelage.data.text.kept import kept
from tutelage.data.text.tokenizer import Tokenizer, library, load, of_content, train_bytes
from tutelage.errors import TutelageError, nearest

log = logging.getLogger(__name__)

LABELS = ("all", "answer")
_VERSION = 1  # of what the files of the cache hold


class Corpus(Data):
    """Texts as batches ``{"input": [B, L], "label": [B, L], "mask": [B, L], "key": [B]}`` of tokens, split by document.

    ``label[i]`` is the token after ``input[i]``: shifted here, once. A document stands between two end tokens and is
    cut into blocks of L positions, each of which predicts one token, and no block has tokens of two documents; the
    last one is padded (``mask`` false, label −100). Files of JSON lines may have prompts and completions: each is one
    block, in which ``answer`` [B, L] is true where the label is a token of the completion.

    Tokens are those of a ``tokenizer.json``, or of a byte-level BPE that is trained on all documents but the test's.
    Documents of test are drawn once, whatever the seeds; those of validation with ``split_seed``.

    Args:
        root: a text file, a file of JSON lines, or a folder of them.
        block: L.
        seed: of the order.
        files: patterns of the files below ``root``.
        val_root: the same for validation; null: drawn from ``root``.
        test_root: the same for test; null: drawn from ``root``.
        val_size: number (below 1: fraction) of documents for validation.
        test_size: the same for test.
        encoding: of all files.
        separator: text between the documents of a text file; null: a file is one document.
        fields: ``text``, or ``prompt`` and ``completion`` → their names in JSON lines.
        labels: ``all``, or ``answer``: tokens of completions alone, in losses and figures.
        tokenizer: as of :func:`tutelage.data.text.tokenizer.load`, such as a ``tokenizer.json``; null: trained here.
        local_files_only: whether a tokenizer of the hub is looked for on this machine only.
        max_vocab_size: of the BPE that is trained here.
        end: the token that separates documents.
        cache: folder of trained tokenizers and encoded texts, by their content; null: none.
        num_classes: the size of the vocabulary, if it is known.
        num_outputs: the same.
        input_shape: [L], if it is given for networks.
        vocab_size: as ``num_classes``.
        tokenizer_digest: SHA-256 of the tokenizer, which files of weights carry; null: not compared.
        views: null, as texts are not augmented.
        **common: arguments of :class:`~tutelage.data.module.Data`.

    Raises:
        TutelageError: a file can't be read, there are too few documents, or an argument is out of range.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        block: int,
        seed: int,
        files: str | Sequence[str] = "**/*",
        val_root: str | Path | None = None,
        test_root: str | Path | None = None,
        val_size: float = 0.05,
        test_size: float = 0.05,
        encoding: str = "utf-8",
        separator: str | None = None,
        fields: Mapping[str, str] | None = None,
        labels: str = "all",
        tokenizer: str | Path | None = None,
        local_files_only: bool = False,
        max_vocab_size: int = 4096,
        end: str = "<|endoftext|>",
        cache: str | Path | None = None,
        num_classes: int | None = None,
        num_outputs: int | None = None,
        input_shape: Sequence[int] | None = None,
        vocab_size: int | None = None,
        tokenizer_digest: str | None = None,
        views: None = None,
        **common: Any,
    ):
        if not isinstance(block, int) or block < 2:
            raise TutelageError(f"data.block must be a whole number of at least 2; found {block}")
        if input_shape is not None and list(input_shape) != [block]:
            raise TutelageError(f"data.input_shape must be [{block}], as data.block says; found {list(input_shape)}")
        if views is not None:
            raise TutelageError(f"data.views must be null: texts are not augmented; found {views}")
        if labels not in LABELS:
            raise TutelageError(f"data.labels must be all or answer; found {labels!r}")
        self.block, self.only_answers, self.input_shape = block, labels == "answer", (block,)
        self.test_size = test_size
        self._cache = None if cache is None else Path(cache).expanduser().absolute()
        patterns = [files] if isinstance(files, str) else list(files)
        self._read = {
            key: self._documents(key, Path(path).expanduser().absolute(), patterns, encoding, separator, fields or {})
            for key, path in (("root", root), ("val_root", val_root), ("test_root", test_root))
            if path is not None
        }
        self._draw_test()
        self._local = local_files_only
        self.tokenizer = self._tokenizer(tokenizer, max_vocab_size, end)
        self.vocab_size, self.tokenizer_digest = size, _ = self.tokenizer.size, self.tokenizer.digest
        self.end = self.tokenizer.inner.token_to_id(end)
        if self.end is None:
            known = nearest(end, self.tokenizer.inner.get_vocab())
            raise TutelageError(f"data.end={end!r} is no token of {self.tokenizer.name}; {known}")
        for key, value in (("num_classes", num_classes), ("num_outputs", num_outputs), ("vocab_size", vocab_size)):
            if value not in (None, size):
                raise TutelageError(f"data.{key}={value}: the tokenizer has {size} tokens")
        if tokenizer_digest not in (None, self.tokenizer.digest):
            raise TutelageError(
                f"data.tokenizer_digest={tokenizer_digest}: {self.tokenizer.name} has {self.tokenizer.digest}"
            )
        super().__init__(seed=seed, num_classes=size, num_outputs=size, val_size=val_size, **common)
        if self.transfer.unlabelled:
            raise TutelageError("data.unlabelled: a text is its own label; add further texts to data.root")

    def load(self) -> tuple[Examples, Examples]:
        """Returns the blocks of training and validation, and those of test."""
        pool = [*self._read["root"], *self._read.get("val_root", [])]
        self._prompted = any(one.prompt is not None for one in (*pool, *self._read["test_root"]))
        if self.only_answers and not self._prompted:
            raise TutelageError("data.labels=answer needs documents with prompt and completion; these have none")
        self._pool = self._cut(pool)
        return self._examples(self._pool), self._examples(self._cut(self._read["test_root"]))

    def checked(self, part: str, examples: Examples) -> Examples:
        """Checks that every token is one of the vocabulary."""
        labels = checked_labels(f"{self.name} {part}", examples.labels, self.num_classes, self.num_outputs)
        return replace(examples, labels=labels)

    def as_set(self, examples: Examples, keys: Tensor) -> BlockSet:
        """Returns some of the blocks."""
        return BlockSet(examples, keys, self._prompted)

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """Splits by document: those of ``val_root``, or drawn with ``split_seed``."""
        first = len(self._read["root"])
        if "val_root" in self._read:
            chosen = torch.arange(first, first + len(self._read["val_root"]))
        else:
            chosen = divide(first, self.val_size, "data.val_size", self.split_seed, "val")[1]
        held = torch.isin(self._pool.document, chosen)
        return (~held).nonzero()[:, 0], held.nonzero()[:, 0]

    def shown(self, split: str, keys: Sequence[int]) -> list[str]:
        """Returns blocks by key as text."""
        found = self.splits[split].examples.pixels
        return [
            self.tokenizer.text(found[torch.tensor([key])][0][: int(found.length[key]) + 1].tolist()) for key in keys
        ]

    # -- documents and tokens -----------------------------------------------------------------------------------------

    def _documents(
        self, key: str, root: Path, patterns: list[str], encoding: str, separator: str | None, fields: Mapping[str, str]
    ) -> list[Document]:
        documents, empty = read(list_files(root, patterns, f"data.{key}"), encoding, separator, fields)
        if not documents:
            raise TutelageError(f"data.{key}={root}: all of its {empty} documents are empty")
        if empty:
            log.warning("data.%s=%s: %d empty documents are left out, %d stay", key, root, empty, len(documents))
        return documents

    def _draw_test(self) -> None:
        """Takes the documents of test from the others, where they have no files of their own."""
        found, drawn = self._read["root"], 2 - len(self._read.keys() & {"val_root", "test_root"})
        if len(found) <= drawn:
            raise TutelageError(
                f"data.root has {len(found)} document{'s' * (len(found) > 1)}, of which {drawn} are drawn for "
                "validation and test: set data.separator (text between documents), or data.val_root and data.test_root"
            )
        if "test_root" not in self._read:
            rest, taken = divide(len(found), self.test_size, "data.test_size", "corpus", "test")
            self._read["root"] = [found[i] for i in rest.tolist()]
            self._read["test_root"] = [found[i] for i in taken.tolist()]

    def _tokenizer(self, given: str | Path | None, size: int, end: str) -> Tokenizer:
        if given is not None:
            return load(str(given), self._local)
        pool = [*self._read["root"], *self._read.get("val_root", [])]
        recipe = ("byte-level BPE", size, end, library().__version__, _VERSION)

        def train(texts: Sequence[str]) -> dict[str, Tensor]:
            return {"json": torch.frombuffer(bytearray(train_bytes(texts, size, end).encode()), dtype=torch.uint8)}

        found = kept(self._cache, recipe, _texts(pool), train)["json"]
        return of_content(bytes(found.tolist()).decode(), "the BPE trained here")

    def _examples(self, blocks: Blocks) -> Examples:
        return Examples(blocks, blocks.labels(self.only_answers))

    def _cut(self, documents: list[Document]) -> Blocks:
        encoded = self._encoded(documents)
        given = [(prompt, text, one.place) for one, (prompt, text) in zip(documents, encoded, strict=True)]
        blocks = cut(given, self.block, self.end, self.tokenizer.digest)
        whole = sum(len(prompt or ()) + len(text) + 1 for prompt, text in encoded)
        if lost := whole - int(blocks.length.sum()):
            log.warning("data: %d of %d tokens are beyond data.block=%d and are left out", lost, whole, self.block)
        return blocks

    def _encoded(self, documents: list[Document]) -> list[tuple[list[int] | None, list[int]]]:
        """Returns the tokens of prompt and text of each document."""

        def encode(texts: Sequence[str]) -> dict[str, Tensor]:
            ids = [one.ids for one in self.tokenizer.inner.encode_batch(texts, add_special_tokens=False)]
            flat = np.fromiter((token for one in ids for token in one), np.int32)
            return {"ids": torch.from_numpy(flat), "counts": torch.tensor([len(one) for one in ids])}

        found = kept(self._cache, ("plain ids", self.tokenizer.digest, _VERSION), _texts(documents), encode)
        parts = [part.tolist() for part in found["ids"].split(found["counts"].tolist())]
        return [(None if one.prompt is None else parts[2 * i], parts[2 * i + 1]) for i, one in enumerate(documents)]


def _texts(documents: Sequence[Document]) -> list[str]:
    return [text for one in documents for text in (one.prompt or "", one.text)]
