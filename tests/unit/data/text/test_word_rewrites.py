"""Rewriting of training texts: the published chances, a function of (seed, view, key), read anew by the tokenizer."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from texts import conll, reviews, tsv

from tutelage.data.augment import Shift
from tutelage.data.text.files import TextFiles
from tutelage.data.text.masking import MaskTokens
from tutelage.data.text.rewrites import words_of
from tutelage.data.text.tagging import TaggedWords
from tutelage.data.text.tang import TangRewrite
from tutelage.data.text.tinybert import TinyBERTRewrite
from tutelage.data.text.word_tags import Lexicon
from tutelage.errors import TutelageError

pytest.importorskip("tokenizers")
NOUNS, VERBS = ("film", "plot", "actors"), ("was", "is")


class Known:
    """A tokenizer that hides words."""

    name, mask = "made up", 4

    class inner:  # noqa: N801 (as of the library's object)
        @staticmethod
        def id_to_token(number):
            return "[MASK]"


@pytest.fixture
def lexicon(tmp_path):
    lines = [";;; a comment", *(f"{word} NN VB" for word in NOUNS), *(f"{word} VBD" for word in VERBS)]
    path = tmp_path / "my-lexicon.txt"
    path.write_text("\n".join(lines))
    return Lexicon(str(path))


def prepared(step, texts):
    step.prepare_words(texts, Known(), None)
    return step


@pytest.fixture
def made(tmp_path):
    tsv(tmp_path / "train.tsv", reviews(60))

    def make(*steps, **arguments):
        given = {"batch_size": 8, "seed": 0, "val_size": 10, "test_size": 10} | arguments
        return TextFiles(train=tmp_path / "train.tsv", augment=list(steps), **given)

    return make


def test_tangs_chances_are_a_tenth_a_tenth_and_a_quarter(lexicon):
    texts = ["film plot actors actors actors was is"]
    step = prepared(TangRewrite(lexicon), texts)
    words, counts, lengths, became = ["film"] * 12, Counter(), Counter(), Counter()
    for number in range(20_000):
        found = step.rewritten(words, random.Random(number))
        lengths[len(found)] += 1
        if len(found) == len(words):
            counts.update("mask" if one == "[MASK]" else "kept" if one == "film" else "other" for one in found)
            became.update(found)
    whole = counts.total()
    assert counts["mask"] / whole == pytest.approx(0.1, abs=0.003)
    assert counts["other"] / whole == pytest.approx(0.1, abs=0.003)
    assert lengths[12] / 20_000 == pytest.approx(0.75, abs=0.01)
    assert {length: lengths[length] / 20_000 for length in range(1, 6)} == pytest.approx(
        dict.fromkeys(range(1, 6), 0.05), abs=0.006
    )
    assert became["actors"] / became["plot"] == pytest.approx(3, rel=0.15)  # by their counts, of the same kind alone
    assert not {*VERBS} & {*became}


def test_an_ngram_stands_anywhere_in_a_row_and_a_short_text_stays_whole(lexicon):
    step = prepared(TangRewrite(mask=0, same_tag=0, ngram=1, longest=2), [])
    words = list("abcd")
    found = {tuple(step.rewritten(words, random.Random(number))) for number in range(200)}
    assert found == {(one,) for one in words} | {("a", "b"), ("b", "c"), ("c", "d")}
    assert prepared(TangRewrite(mask=0, same_tag=0, ngram=1), []).rewritten(["a"], random.Random(0)) == ["a"]


def test_tinyberts_chance_is_four_tenths_and_each_of_the_nearest_words_is_as_probable(tmp_path):
    words = ["film", "movie", "picture", "plot", "tax"]
    table = np.array([[1, 0], [2, 0.1], [1, 0.2], [0.5, 0.5], [-1, 0]], dtype=np.float32)
    np.savez(tmp_path / "v.npz", words=np.array(words), vectors=table)
    step = prepared(TinyBERTRewrite(str(tmp_path / "v.npz"), candidates=2), ["Film strange , tax"])
    found = Counter(word for number in range(5000) for word in step.rewritten(["Film"] * 4, random.Random(number)))
    assert {word: found[word] / 20_000 for word in found} == pytest.approx(
        {"Film": 0.6, "movie": 0.2, "picture": 0.2}, abs=0.01
    )
    assert step.rewritten(["strange", ","], random.Random(0)) == ["strange", ","]  # no vector, no word


def test_a_language_model_proposes_its_most_probable_other_words_where_the_word_stands(tmp_path):
    transformers = pytest.importorskip("transformers")
    import tokenizers

    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "plot",
                                                      "was", "good", "##s", "!"])}  # fmt: skip
    inner = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    given = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    known = {f"{name}_token": token for name, token in given.items()}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **known)
    fast.save_pretrained(tmp_path / "net")
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=8)  # fmt: skip
    net = transformers.BertForMaskedLM(config).eval()
    net.save_pretrained(tmp_path / "net")

    classifier = tmp_path / "classifier"
    fast.save_pretrained(classifier)
    transformers.BertForSequenceClassification(config).save_pretrained(classifier)
    with pytest.raises(TutelageError, match=r"is no masked language model: its weights lack cls\."):
        prepared(TinyBERTRewrite(masked_lm=str(classifier)), ["a film"])

    step = TinyBERTRewrite(masked_lm=str(tmp_path / "net"), probability=1.0, candidates=2)
    step.prepare_words(["a films was good !", "plot was a"], Known(), tmp_path / "kept")
    words = words_of("a films was good !")
    read = {tuple(step.rewritten(words, random.Random(number))) for number in range(100)}
    ids = torch.tensor([[2, 5, 6, 10, 4, 9, 11, 3]])  # [CLS] a film ##s [MASK] good ! [SEP]
    logits = net(ids, attention_mask=torch.ones_like(ids)).logits[0, 4]
    logits[[0, 1, 2, 3, 4, 8, 10, 11]] = -torch.inf  # special ones, itself, a piece, a mark
    names = list(vocabulary)
    assert {one[2] for one in read} == {names[i] for i in logits.topk(2).indices.tolist()}
    assert {one[1] for one in read} == {"films"}  # two pieces, and there are no vectors
    assert {one[4] for one in read} == {"!"}
    again = TinyBERTRewrite(masked_lm=str(tmp_path / "net"), probability=1.0, candidates=2)
    again.prepare_words(["a films was good !", "plot was a"], Known(), tmp_path / "kept")
    assert again.rewritten(words, random.Random(5)) == step.rewritten(words, random.Random(5))


def test_a_rewritten_text_is_a_function_of_seed_view_and_key_and_view_0_is_the_text(made):
    step = TangRewrite(mask=0.3, same_tag=0)
    train, plain = made(step).splits["train"], made().splits["train"]
    rows = torch.arange(20)
    assert torch.equal(train[0, rows]["input"], plain[0, rows]["input"])
    one, again, other = (train[epoch, rows] for epoch in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["mask"].sum(1), other["mask"].sum(1))
    alone = train[1, torch.tensor([4])]  # whatever the batch and its padding
    width = alone["input"].shape[1]
    assert torch.equal(alone["input"][0], one["input"][4, :width])
    assert not one["mask"][4, width:].any()
    assert torch.equal(one["label"], plain[0, rows]["label"])
    different = made(step, seed=1).splits["train"][1, rows]["mask"]
    assert different.shape != one["mask"].shape or not torch.equal(different, one["mask"])
    viewed = made(step, views=3).splits["train"]
    assert torch.equal(viewed[4, rows]["input"], one["input"])
    assert viewed[4, rows]["view"].tolist() == [1] * 20
    reseeded = made(step).with_seed(1).splits["train"][1, rows]["mask"]
    assert torch.equal(reseeded, different)


def test_ids_are_those_of_the_changed_words_and_hide_words_by_the_tokenizers_token(made):
    data = made(TangRewrite(mask=0.5, same_tag=0, ngram=0))
    batch = data.splits["train"][1, torch.arange(30)]
    hidden = (batch["input"] == data.tokenizer.mask).sum() / (batch["mask"].sum() - 60)
    assert float(hidden) == pytest.approx(0.5, abs=0.1)
    for row, key in enumerate(batch["key"].tolist()):
        text = data.augment.text(data.parts["train"].texts[key], key, 1)
        assert batch["input"][row][batch["mask"][row]].tolist() == data.tokenizer.inner.encode(text).ids


def test_rewrites_of_words_go_before_those_of_ids_and_pairs_are_rewritten_each(made):
    data = made(MaskTokens(), TangRewrite(mask=0, same_tag=0, ngram=1, longest=1))
    batch = data.splits["train"][1, torch.arange(8)]
    assert batch["mask"].sum(1).tolist() == [3] * 8  # one word between [CLS] and [SEP]
    assert ((batch["label"] >= 0).sum(1) == 1).all()
    pair = data.augment.text(("a good film", "a bad plot"), 3, 1)
    assert [len(one.split()) for one in pair] == [1, 1]


def test_worker_processes_read_the_same_texts(made):
    loaders = [made(TangRewrite(same_tag=0), num_workers=workers).train_dataloader() for workers in (0, 2)]
    for loader in loaders:
        loader.sampler.set_epoch(1)
    batches = [list(loader) for loader in loaders]
    assert len(batches[0]) == len(batches[1]) > 0
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_can_not_be_rewritten_is_refused_with_a_sentence(made, tmp_path):
    for arguments, message in (
        ({"mask": 0.6, "same_tag": 0.6}, "mask + same_tag must be in"),
        ({"ngram": 2}, "ngram must be in"),
        ({"longest": 0}, "longest must be at least 1"),
        ({}, "needs a tagger"),
    ):
        with pytest.raises(TutelageError, match=message.replace("+", r"\+")):
            TangRewrite(**arguments)
    for arguments, message in (
        ({}, "needs vectors of words"),
        ({"vectors": "v", "probability": 2}, "probability must be"),
        ({"vectors": "v", "candidates": 0}, "candidates must be"),
    ):
        with pytest.raises(TutelageError, match=message):
            TinyBERTRewrite(**arguments)
    with pytest.raises(TutelageError, match="neither a file nor an installed package"):
        made(TinyBERTRewrite("nowhere.npy"))
    with pytest.raises(TutelageError, match=r"masked_lm=.* is no masked language model"):
        made(TinyBERTRewrite(masked_lm=str(tmp_path)))
    with pytest.raises(TutelageError, match="Shift is no rewrite of texts"):
        made(Shift(1))
    conll(tmp_path / "names.conll", 60)
    with pytest.raises(TutelageError, match=r"TangRewrite changes words, and .* has a label for each"):
        TaggedWords(train=tmp_path / "names.conll", augment=[TangRewrite(same_tag=0)], batch_size=8, seed=0)
    (tmp_path / "half-lexicon.txt").write_text("film NN\n\nplot\n")
    with pytest.raises(TutelageError, match=r"half-lexicon\.txt, line 3: no tag for 'plot'"):
        prepared(TangRewrite(Lexicon(str(tmp_path / "half-lexicon.txt"))), ["a"])
    (tmp_path / "empty-lexicon.txt").write_text(";;; nothing")
    with pytest.raises(TutelageError, match="no line with a word and a tag"):
        prepared(TangRewrite(Lexicon(str(tmp_path / "empty-lexicon.txt"))), ["a"])
