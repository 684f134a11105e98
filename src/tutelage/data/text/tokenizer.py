"""Tokenizers: of a ``tokenizer.json``, of Hugging Face's transformers, or trained on the training texts.

The library tokenizers is imported when it is used: it comes with ``pip install 'tutelage[text]'``.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from tutelage.errors import TutelageError

TRAINED = ("words", "bpe")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # of trained ones, with the ids 0 to 4


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer of the library tokenizers, without truncation and padding of its own.

    Args:
        inner: the library's object.
        name: where it is from, for messages.
        pad: id of padding.
    """

    inner: Any
    name: str
    pad: int = 0

    @cached_property
    def size(self) -> int:
        """Returns the highest id + 1: how many rows an embedding needs."""
        return max(self.inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @cached_property
    def digest(self) -> str:
        """Returns a SHA-256 of everything that determines ids."""
        content = json.dumps(json.loads(self.inner.to_str()), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def special(self) -> tuple[int, ...]:
        """Returns the ids that stand for no text, such as [CLS], in ascending order."""
        added = self.inner.get_added_tokens_decoder()
        return tuple(sorted(number for number, token in added.items() if token.special))

    @cached_property
    def unknown(self) -> int | None:
        """Returns the id of what the vocabulary lacks; None without."""
        model = json.loads(self.inner.to_str())["model"]
        name = model.get("unk_token")
        found: int | None = model.get("unk_id") if name is None else self.inner.token_to_id(name)
        return found

    @cached_property
    def mask(self) -> int | None:
        """Returns the id of a masked token; None without."""
        return next(
            (number for name in ("[MASK]", "<mask>") if (number := self.inner.token_to_id(name)) is not None), None
        )

    def text(self, ids: Sequence[int]) -> str:
        """Returns ids as text, without special tokens."""
        return str(self.inner.decode(list(ids), skip_special_tokens=True))


def load(given: str, local_files_only: bool = False) -> Tokenizer:
    """Returns a tokenizer by where it is.

    Args:
        given: a ``tokenizer.json``; a folder or an installed package with one; or what ``AutoTokenizer`` of
            transformers takes: a folder with a vocabulary, or a name of the hub.
        local_files_only: whether a name of the hub is looked for among the files on this machine only.

    Raises:
        TutelageError: there is none, it is damaged, or a library is missing.
    """
    path = _found(given)
    if path is None:
        return _plain(_of_transformers(given, local_files_only), given)
    try:
        return _plain(library().Tokenizer.from_file(str(path)), str(path))
    except Exception as error:  # the library raises Exception itself
        raise TutelageError(f"data.tokenizer: {path} can't be read as a tokenizer.json: {error}") from error


def train(kind: str, texts: Sequence[str], size: int) -> Tokenizer:
    """Trains a tokenizer: a function of the texts, in lower case.

    Args:
        kind: ``words``: the most frequent ones, split at spaces and punctuation; ``bpe``: byte-pair encoding of them.
        texts: the training set's.
        size: most entries of its vocabulary, the five special ones included.

    Raises:
        TutelageError: ``size`` leaves no room for words.
    """
    if size <= len(SPECIALS):
        raise TutelageError(f"data.max_vocab_size must be above {len(SPECIALS)}, the special tokens; found {size}")
    found = library()
    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "words": (found.models.WordLevel, found.trainers.WordLevelTrainer, {}),
        "bpe": (found.models.BPE, found.trainers.BpeTrainer, {"initial_alphabet": []}),
    }
    model, trainer, further = kinds[kind]
    inner = found.Tokenizer(model(unk_token=SPECIALS[1]))
    inner.normalizer = found.normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = found.pre_tokenizers.BertPreTokenizer()
    inner.train_from_iterator(
        texts, trainer(vocab_size=size, special_tokens=list(SPECIALS), show_progress=False, **further)
    )
    inner.post_processor = found.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return _plain(inner, f"{kind} of the training texts")


def train_bytes(texts: Sequence[str], size: int, end: str) -> str:
    """Trains a byte-level BPE, with which any text survives, and returns its ``tokenizer.json``.

    Args:
        texts: what it is trained on.
        size: most entries of its vocabulary: 256 bytes, the end token, and merges while there are pairs to merge.
        end: the token that separates documents.

    Raises:
        TutelageError: ``size`` leaves no room for merges.

    Sennrich, Haddow & Birch, "Neural Machine Translation of Rare Words with Subword Units", 2016, arXiv:1508.07909.
    """
    if size <= 257:
        raise TutelageError(f"data.max_vocab_size must be above 257 (all bytes and {end}); found {size}")
    found = library()
    inner = found.Tokenizer(found.models.BPE())
    inner.pre_tokenizer = found.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = found.decoders.ByteLevel()
    trainer = found.trainers.BpeTrainer(
        vocab_size=size, special_tokens=[end], show_progress=False,
        initial_alphabet=found.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator(texts, trainer)
    return str(inner.to_str())


def of_content(content: str, name: str) -> Tokenizer:
    """Returns the tokenizer that the content of a ``tokenizer.json`` describes.

    Args:
        content: of the file.
        name: of the tokenizer, for messages.
    """
    return _plain(library().Tokenizer.from_str(content), name)


def _plain(inner: Any, name: str) -> Tokenizer:
    padding = inner.padding
    pad = padding["pad_id"] if padding else next(
        (number for token in ("[PAD]", "<pad>") if (number := inner.token_to_id(token)) is not None), 0
    )  # fmt: skip
    inner.no_truncation()
    inner.no_padding()
    return Tokenizer(inner, name, pad)


def _found(given: str) -> Path | None:
    """Returns the file ``tokenizer.json`` that ``given`` names; None where there is none."""
    path = Path(given).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return path / "tokenizer.json" if (path / "tokenizer.json").is_file() else None
    if path.suffix == ".json":
        raise TutelageError(f"data.tokenizer: there is no file {path}")
    if not given.isidentifier() or (spec := find_spec(given)) is None:
        return None
    roots = spec.submodule_search_locations or []
    files = sorted(file for root in roots for file in Path(root).rglob("tokenizer.json"))
    if len(files) != 1:
        raise TutelageError(
            f"data.tokenizer: package {given!r} should hold one tokenizer.json; found {[*map(str, files)] or 'none'}"
        )
    return files[0]


def _of_transformers(given: str, local_files_only: bool) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise TutelageError(
            f"data.tokenizer={given} is {' or '.join(TRAINED)}, or no file, folder or package with a tokenizer.json; "
            "others need the text extra: pip install 'tutelage[text]'"
        ) from error
    try:
        return AutoTokenizer.from_pretrained(given, use_fast=True, local_files_only=local_files_only).backend_tokenizer
    except Exception as error:  # whatever transformers raises for a name that is not there
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise TutelageError(
            f"data.tokenizer={given} is not {' or '.join(TRAINED)}, nor a file, folder or package with a "
            f"tokenizer.json, and transformers has none of that name: {reason}"
        ) from error


def library() -> ModuleType:
    """Imports the library tokenizers.

    Raises:
        TutelageError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise TutelageError("texts need the text extra: pip install 'tutelage[text]'") from error
    return tokenizers
