"""Rewriting of sentences (Jiao et al. 2020, TinyBERT): words that a language model or vectors of words propose."""

import hashlib
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.data.text.kept import kept
from tutelage.data.text.rewrites import words_of
from tutelage.data.text.tokenizer import Tokenizer
from tutelage.data.text.vector_files import VectorFile
from tutelage.errors import TutelageError

log = logging.getLogger(__name__)

_VERSION = 1  # of what the files of the cache hold
_AT_ONCE = 64  # rows of a language model, or 16 times as many of vectors


class TinyBERTRewrite:
    """Replaces each word, with a chance, by one of ``candidates`` others.

    Of a word that is one piece to the masked language model they are its most probable ones where that word stands; of
    others, or without a model, the words of the nearest vectors (cosine). A word without either stays, as do marks.
    Theirs: BERT, GloVe, 15 candidates, chance 0.4, 20 rewritings of a sentence, which with the sentence itself are
    ``views=21``; unlike theirs a candidate is never the word itself. The candidates of all training texts are found
    once and kept in ``data.cache``. It must be the first of several rewrites, as the model has read the original texts.

    Args:
        vectors: of words: a file or package (:class:`~tutelage.data.text.vector_files.VectorFile`); null: none.
        masked_lm: a folder or name that ``AutoModelForMaskedLM`` of transformers takes, with its tokenizer; null: none.
        probability: chance of a word to be replaced.
        candidates: number of words that it is replaced by, each as probable.
        device: where the language model runs, once.

    Raises:
        TutelageError: a number is out of range, neither is given, or a file can't be read.

    Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", 2020, arXiv:1909.10351, algorithm 1.
    """

    def __init__(
        self,
        vectors: str | None = None,
        masked_lm: str | None = None,
        probability: float = 0.4,
        candidates: int = 15,
        device: str = "cpu",
    ):
        if not 0 <= probability <= 1:
            raise TutelageError(f"TinyBERTRewrite: probability must be in [0, 1]; found {probability}")
        if candidates < 1:
            raise TutelageError(f"TinyBERTRewrite: candidates must be at least 1; found {candidates}")
        if vectors is None and masked_lm is None:
            raise TutelageError("TinyBERTRewrite needs vectors of words, a masked language model, or both")
        self.vectors, self.masked_lm, self.probability = vectors, masked_lm, probability
        self.candidates, self.device = candidates, device
        self._nearest: Mapping[str, list[str]] = {}
        self._proposed: Mapping[tuple[str, ...], list[list[str]]] = {}

    def prepare_words(self, texts: Sequence[str], tokenizer: Tokenizer, cache: Path | None) -> None:
        """Finds the candidates of all training words.

        Raises:
            TutelageError: the vectors or the language model can't be read.
        """
        sentences = list(dict.fromkeys(tuple(words_of(text)) for text in texts))
        if self.vectors is not None:
            known = sorted({word.lower() for words in sentences for word in words if _is_word(word)})
            self._nearest = _nearest(VectorFile(self.vectors), known, self.candidates, cache)
        if self.masked_lm is not None:
            self._proposed = _Proposals(self.masked_lm, self.device).of(sentences, self.candidates, cache)

    def rewritten(self, words: list[str], chance: random.Random) -> list[str]:
        """Returns the changed words."""
        proposed, found = self._proposed.get(tuple(words)), []
        for place, word in enumerate(words):
            draw, which = chance.random(), chance.random()
            others = (proposed[place] if proposed else []) or self._nearest.get(word.lower(), [])
            if draw < self.probability and others and _is_word(word):
                word = others[int(which * len(others))]
            found.append(word)
        return found


def _is_word(word: str) -> bool:
    return any(character.isalpha() for character in word)


def _nearest(file: VectorFile, words: list[str], count: int, cache: Path | None) -> dict[str, list[str]]:
    """Returns the words of the ``count`` nearest vectors of each word that has a vector, itself left out."""
    rows = {word: row for row, word in reversed(list(enumerate(file.words)))}  # the first of equal words
    known = [word for word in words if word in rows]
    digest = hashlib.sha256(file.table.tobytes()).hexdigest()

    def make(words: Sequence[str]) -> dict[str, Tensor]:
        table = torch.nn.functional.normalize(torch.tensor(file.table, dtype=torch.float32), dim=1)
        own = torch.tensor([rows[word] for word in words], dtype=torch.long)
        found = [torch.zeros(0, min(count, len(table) - 1), dtype=torch.int32)]
        for part in own.split(16 * _AT_ONCE):
            near = (table[part] @ table.T).scatter(1, part[:, None], -torch.inf)
            found.append(near.topk(min(count, len(table) - 1)).indices.int())
        return {"nearest": torch.cat(found)}

    found = kept(cache, ("nearest", _VERSION, count, digest), known, make)["nearest"].tolist()
    return {word: [file.words[row] for row in near] for word, near in zip(known, found, strict=True)}


class _Proposals:
    """The most probable words in place of each word of a sentence, by a masked language model."""

    def __init__(self, name: str, device: str):
        try:
            from transformers import AutoModelForMaskedLM, AutoTokenizer
        except ImportError as error:
            raise TutelageError("masked_lm needs the text extra: pip install 'tutelage[text]'") from error
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True)
            net, loaded = AutoModelForMaskedLM.from_pretrained(name, output_loading_info=True)
        except Exception as error:  # whatever transformers raises for a name that is not there
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise TutelageError(f"masked_lm={name} is no masked language model of transformers: {reason}") from error
        if missing := sorted(loaded["missing_keys"]):
            raise TutelageError(f"masked_lm={name} is no masked language model: its weights lack {missing[0]}")
        self.net = net.eval().to(device)
        if self.tokenizer.mask_token_id is None:
            raise TutelageError(f"masked_lm={name}: its tokenizer has no token that hides a word")
        self.name, self.device = name, device
        known = {number: token for token, number in self.tokenizer.get_vocab().items()}
        tokens = [known.get(number, "") for number in range(self.net.config.vocab_size)]
        special = {*self.tokenizer.all_special_tokens}
        self.words = [token.lstrip("\u0120\u2581") for token in tokens]
        self.whole = torch.tensor([
            bool(token) and token not in special and not token.startswith("##") and _is_word(word)
            for token, word in zip(tokens, self.words, strict=True)
        ])  # fmt: skip

    def of(
        self, sentences: Sequence[tuple[str, ...]], count: int, cache: Path | None
    ) -> dict[tuple[str, ...], list[list[str]]]:
        """Returns for each sentence the candidates of each of its words; none of those of several pieces."""
        digest = hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode())
        for name, tensor in sorted(self.net.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().float().numpy().tobytes())

        def make(sentences: Sequence[tuple[str, ...]]) -> dict[str, Tensor]:
            log.info("%s reads %d texts, once for each of their words", self.name, len(sentences))
            return {"proposed": torch.cat([self._rows(words, count) for words in sentences])}

        found = kept(cache, ("proposed", _VERSION, count, digest.hexdigest()), sentences, make)["proposed"].tolist()
        rows = iter(found)
        return {
            words: [[self.words[row] for row in next(rows) if row >= 0] for _ in words] for words in sentences
        }  # fmt: skip

    def _rows(self, words: tuple[str, ...], count: int) -> Tensor:
        """Returns the ids of the candidates, [words, count] int32; −1 where there is none."""
        found = torch.full((len(words), count), -1, dtype=torch.int32)
        read = self.tokenizer(list(words), is_split_into_words=True, truncation=True, return_tensors="pt")
        pieces: dict[int, list[int]] = {}
        for place, word in enumerate(read.word_ids()):
            if word is not None:
                pieces.setdefault(word, []).append(place)
        single = [(word, at[0]) for word, at in pieces.items() if len(at) == 1 and _is_word(words[word])]
        for part in _parts(single):
            ids = read["input_ids"].repeat(len(part), 1)
            numbers, places = torch.tensor(part).unbind(1)
            own = ids[torch.arange(len(part)), places]
            ids[torch.arange(len(part)), places] = self.tokenizer.mask_token_id
            further: dict[str, Any] = {name: x.repeat(len(part), 1) for name, x in read.items() if name != "input_ids"}
            with torch.no_grad():
                given = {name: x.to(self.device) for name, x in {"input_ids": ids, **further}.items()}
                logits = self.net(**given).logits[torch.arange(len(part)), places].float().cpu()
            logits[:, ~self.whole] = -torch.inf
            logits.scatter_(1, own[:, None], -torch.inf)
            best = logits.topk(min(count, logits.shape[1]))
            found[numbers, : best.indices.shape[1]] = best.indices.where(best.values.isfinite(), -1).int()
        return found


def _parts(rows: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    for start in range(0, len(rows), _AT_ONCE):
        yield rows[start : start + _AT_ONCE]
