"""The base of all data that are text: a tokenizer, token ids, and batches padded to their longest text."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from tutelage.data.examples import Examples, divide
from tutelage.data.labels import checked_labels, has_label
from tutelage.data.module import Data
from tutelage.data.text import tokenizer as tokenizers
from tutelage.data.text.encode import Encoder
from tutelage.data.text.labels import Labels
from tutelage.data.text.rewrites import Rewrite, Rewrites, WordRewrite
from tutelage.data.text.rows import Rows
from tutelage.data.text.tokens import Tokens, TokenSet
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

_PADS = ("batch", "max")


@runtime_checkable
class Texts(Protocol):
    """Additional texts without labels."""

    def rows(self) -> Rows:
        """Returns all texts; their labels are not read."""


@dataclass(frozen=True, eq=False)
class _Bare:
    """Texts without labels, in the ids of a tokenizer."""

    texts: Texts
    encode: Callable[[Rows], Tokens]
    like: Any  # a training text

    def load(self, shape: tuple[int, ...]) -> Examples:
        rows = self.texts.rows()
        pairs = isinstance(self.like, tuple)
        if len(rows) and isinstance(rows.texts[0], tuple) != pairs:
            found, wanted = ("single texts", "pairs") if pairs else ("pairs", "single texts")
            raise TutelageError(
                f"data.unlabelled: {rows.places(0)} and what follows are {found}, and the training texts are {wanted}; "
                f"its own `pair` {'names' if pairs else 'is for'} the column of a second text"
            )
        return Examples(self.encode(rows), torch.full((len(rows),), NO_LABEL))


class TextData(Data):
    """Texts as token ids, ``{"input": [B, L] int64, "mask": [B, L] bool, "label": [B, …], "key": [B]}``.

    L is the length of the batch's longest text; ``mask`` is true at its tokens. A pair of texts has ``segment`` [B, L],
    0 in the first and 1 in the second. Without a test set it is drawn from the training texts, the same for all seeds.

    Args:
        parts: ``train``, and where they exist ``val`` and ``test``: texts as they stand in files.
        labels: of all parts; None: labels are token ids, which rewrites set.
        tokenizer: ``words`` or ``bpe``, trained on the training texts (their labels are not looked at); a
            ``tokenizer.json``; a folder or an installed package with one; or what ``AutoTokenizer`` takes.
        max_vocab_size: most entries of a trained tokenizer.
        max_length: tokens of a text, special ones included; of a pair together.
        truncate: whether longer texts are cut.
        pad: ``batch``: rows are as long as the longest text of their batch; ``max``: all ``max_length``.
        local_files_only: whether a tokenizer of the hub is looked for among the files on this machine only.
        vocab_size: the highest id + 1, which networks need; None: not compared.
        tokenizer_digest: SHA-256 of the tokenizer, which files of weights carry; None: not compared.
        student_tokenizer: another one for the student, as ``tokenizer``: a batch also has ``student_input`` and
            ``student_mask`` [B, L']; None: all networks read the same ids.
        student_vocab_size: of it, as ``vocab_size``.
        student_tokenizer_digest: of it, as ``tokenizer_digest``.
        cache: folder where token ids are kept by content; None: nowhere.
        augment: rewrites of training texts (:mod:`tutelage.data.text.rewrites`).
        views: number of rewritten views of a text; epoch e uses number e mod views.
        test_size: number (below 1: fraction) of test texts where there is no test set.
        val_size: see :class:`~tutelage.data.module.Data`; used where there is no ``val``.
        unlabelled: additional texts to train on (:mod:`tutelage.data.text.files`).
        seed: of the order and the rewrites.
        **common: arguments of :class:`~tutelage.data.module.Data`.

    Raises:
        TutelageError: an argument is out of range, a tokenizer is not that of the config, or a text is refused.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("tokenizer_digest", "pad", "max_length")

    def __init__(
        self,
        *,
        parts: Mapping[str, Rows],
        labels: Labels | None,
        seed: int,
        tokenizer: str = "words",
        max_vocab_size: int = 10_000,
        max_length: int = 128,
        truncate: bool = True,
        pad: str = "batch",
        local_files_only: bool = False,
        vocab_size: int | None = None,
        tokenizer_digest: str | None = None,
        student_tokenizer: str | None = None,
        student_vocab_size: int | None = None,
        student_tokenizer_digest: str | None = None,
        cache: str | Path | None = None,
        augment: Iterable[Rewrite | WordRewrite] | None = None,
        views: int | None = None,
        test_size: float = 0.1,
        val_size: float = 0.1,
        unlabelled: Iterable[Texts] | None = None,
        class_names: Sequence[str] | None = None,
        **common: Any,
    ):
        if pad not in _PADS:
            raise TutelageError(f"data.pad must be {' or '.join(_PADS)}; found {pad!r}")
        if max_length < 1:
            raise TutelageError(f"data.max_length must be at least 1; found {max_length}")
        self.parts, self.test_size = dict(parts), test_size
        # Labels of tokens come with the batches: the table only says that a text has some.
        some = {part: torch.zeros(len(rows), 1, dtype=torch.long) for part, rows in parts.items()}
        self.label_tables = some if labels is None else dict(labels.tables)
        self._test_is_given = "test" in self.parts
        if not self._test_is_given:
            self._draw_test()
        self.tokenizer = self._tokenizer(tokenizer, max_vocab_size, tokenizer_digest, local_files_only)
        _compare(self.tokenizer, vocab_size, tokenizer_digest)
        self.vocab_size, self.tokenizer_digest = self.tokenizer.size, self.tokenizer.digest
        folder = Path(cache).expanduser() if cache else None
        self.encode, self.student_encode = Encoder(self.tokenizer, max_length, truncate, folder), None
        if student_tokenizer is not None:
            own = self._students(student_tokenizer, max_vocab_size, student_tokenizer_digest, local_files_only, labels)
            _compare(own, student_vocab_size, student_tokenizer_digest, "student_")
            self.student_vocab_size, self.student_tokenizer_digest = own.size, own.digest
            self.student_encode = Encoder(own, max_length, truncate, folder)
        self.input_shape, self.width = (max_length,), max_length if pad == "max" else None
        self.ragged = self.width is None
        super().__init__(
            num_classes=labels.num_classes if labels else self.vocab_size, seed=seed, val_size=val_size,
            num_outputs=labels.num_outputs if labels else self.vocab_size,
            class_names=class_names or (labels.names if labels else None), unlabelled=self._bare(unlabelled), **common,
        )  # fmt: skip
        self.augment = self._rewrites(augment, seed, views) if augment else None

    def _divided(self) -> tuple[list[int], list[int]]:
        """Returns the rows of the training texts that stay, and those that are drawn as test texts."""
        known = has_label(self.label_tables["train"]).nonzero().flatten()
        taken = known[divide(len(known), self.test_size, "data.test_size", "text", "test")[1]].tolist()
        return sorted({*range(len(self.parts["train"]))} - {*taken}), taken

    def _draw_test(self) -> None:
        rows, table = self.parts["train"], self.label_tables["train"]
        for part, chosen in zip(("train", "test"), self._divided(), strict=True):
            self.parts[part], self.label_tables[part] = chosen_rows(rows, chosen), table[chosen]

    def _tokenizer(self, given: str, size: int, digest: str | None, local_files_only: bool) -> tokenizers.Tokenizer:
        if given not in tokenizers.TRAINED:
            return tokenizers.load(given, local_files_only)
        rows = self.parts["train"]
        found = tokenizers.train(given, plain_texts(rows), size)
        if self._test_is_given and digest not in (None, found.digest):
            # A network is measured on other test texts than those drawn for it, which its tokenizer had not seen.
            without = tokenizers.train(given, plain_texts(chosen_rows(rows, self._divided()[0])), size)
            return without if without.digest == digest else found
        return found

    def _rewrites(self, steps: Iterable[Rewrite | WordRewrite], seed: int, views: int | None) -> Rewrites:
        rows = self.parts["train"]
        made = Rewrites(steps, seed, views, self.tokenizer, plain_texts(rows), self.encode.folder)
        if made.of_words and rows.texts and isinstance(rows.texts[0], list):
            raise TutelageError(
                f"data.augment: {type(made.of_words[0]).__name__} changes words, and {self.name} has a label for each"
            )
        return made

    def _bare(self, unlabelled: Iterable[Texts] | None) -> list[_Bare]:
        for one in (found := list(unlabelled or ())):
            if not isinstance(one, Texts):
                raise TutelageError(f"data.unlabelled: {type(one).__name__} gives no texts (tutelage.data.text.files)")
        return [_Bare(one, self._in_both, self.parts["train"].texts[0]) for one in found]

    def _students(
        self, given: str, size: int, digest: str | None, local_files_only: bool, labels: Labels | None
    ) -> tokenizers.Tokenizer:
        """Returns the student's own tokenizer.

        Raises:
            TutelageError: labels are of tokens.
        """
        rows = self.parts["train"]
        if labels is None or (rows.texts and isinstance(rows.texts[0], list)):
            raise TutelageError(
                f"data.student_tokenizer={given}: labels are of tokens here, so teacher and student must read the same"
            )
        return self._tokenizer(given, size, digest, local_files_only)

    def _in_both(self, rows: Rows) -> Tokens:
        found = self.encode(rows)
        return found if self.student_encode is None else replace(found, student=self.student_encode(rows))

    def _few_in_both(self, texts: Sequence[Any]) -> Tokens:
        found = self.encode.few(texts)
        return found if self.student_encode is None else replace(found, student=self.student_encode.few(texts))

    def tokens(self, rows: Rows) -> Tokens:
        """Returns the token ids of a split's texts."""
        return self._in_both(rows)

    def load(self) -> tuple[Examples, Examples]:
        """Returns the ids and labels of training (including validation) and test texts."""
        found = {part: Examples(self.tokens(rows), self.label_tables[part]) for part, rows in self.parts.items()}
        pool = found["train"]
        if "val" in found:
            pool = Examples(
                found["train"].pixels.joined([found["val"].pixels]),  # type: ignore[attr-defined]
                torch.cat([found["train"].labels, found["val"].labels]),
            )
        return pool, found["test"]

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """Uses the ``val`` texts for validation, or draws them from the labelled training texts."""
        if "val" in self.parts:
            first = count - len(self.parts["val"])
            return torch.arange(first), torch.arange(first, count)
        known = has_label(self.label_tables["train"]).nonzero().flatten()
        taken = known[divide(len(known), self.val_size, "data.val_size", self.split_seed, "val")[1]]
        left = torch.ones(count, dtype=torch.bool)
        left[taken] = False
        return left.nonzero().flatten(), taken

    def checked(self, part: str, examples: Examples) -> Examples:
        """Checks that known labels are in range."""
        known = has_label(examples.labels)
        filled = torch.where(known.view(-1, *[1] * (examples.labels.ndim - 1)), examples.labels, 0)
        found = checked_labels(f"{self.name} {part}", filled, self.num_classes, self.num_outputs)
        found[~known] = examples.labels[~known].to(found.dtype)
        return replace(examples, labels=found)

    def as_set(self, examples: Examples, keys: Tensor) -> TokenSet:
        """Returns some of the texts as they stand."""
        pad = 0 if self.student_encode is None else self.student_encode.tokenizer.pad
        return TokenSet(examples, keys, self.tokenizer.pad, self.width, student_pad=pad)

    def for_training(self, plain: TokenSet, examples: Examples) -> TokenSet:
        """Returns the training set, rewritten by epoch if configured."""
        return replace(plain, rewrites=self.augment, encode=self._few_in_both) if self.augment else plain

    def at_one_width(self) -> TokenSet:
        """Returns the training texts in batches as wide as the longest of them, rewritten ones included."""
        train: TokenSet = self.splits["train"]
        longest = int(train.lengths("input")[train.keys].max())
        return replace(train, width=self.input_shape[0] if train.encode else longest)

    def shown(self, split: str, keys: Sequence[int]) -> list[str]:
        """Returns texts of ``train``, ``val`` or ``test`` by key, the two of a pair with a line between them."""
        texts = self.splits[split].tokens.texts
        return [one if isinstance(one, str) else "\n".join(one) if isinstance(one, tuple) else " ".join(one)
                for one in (texts[key] for key in keys)]  # fmt: skip


def chosen_rows(rows: Rows, chosen: Sequence[int]) -> Rows:
    """Returns some of the rows, which keep their places in files."""
    texts, labels = [rows.texts[i] for i in chosen], [rows.labels[i] for i in chosen]
    return Rows(texts, labels, lambda row: rows.places(chosen[row]), rows.names)


def plain_texts(rows: Rows) -> list[str]:
    """Returns every text by itself, those of pairs too; of words, joined by spaces."""
    if rows.texts and isinstance(rows.texts[0], str):
        return list(rows.texts)
    if rows.texts and isinstance(rows.texts[0], list):
        return [" ".join(words) for words in rows.texts]
    return [text for pair in rows.texts for text in pair]


def _compare(found: tokenizers.Tokenizer, vocab_size: int | None, digest: str | None, whose: str = "") -> None:
    if digest is not None and digest != found.digest:
        raise TutelageError(
            f"data.{whose}tokenizer: {found.name} is another tokenizer ({found.size} ids, digest {found.digest[:12]}) "
            f"than the config's (data.{whose}tokenizer_digest {digest[:12]}): its file or the training texts "
            "have changed"
        )
    if vocab_size is not None and vocab_size != found.size:
        raise TutelageError(f"data.{whose}vocab_size={vocab_size}: {found.name} has {found.size} ids")
