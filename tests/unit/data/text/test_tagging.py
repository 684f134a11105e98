"""data=tagged_words: a word's label stands at its first token, and nowhere else."""

import pytest
import torch
from texts import conll

from tutelage.data.text.tagging import TaggedWords, read_words
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

pytest.importorskip("tokenizers")


@pytest.fixture
def made(tmp_path):
    conll(tmp_path / "train.conll", 60)

    def make(**arguments):
        given = {"batch_size": 8, "seed": 0, "val_size": 10, "test_size": 10} | arguments
        return TaggedWords(train=tmp_path / "train.conll", **given)

    return make


@pytest.mark.parametrize("arguments", [{}, {"tokenizer": "bpe", "max_vocab_size": 40}, {"max_length": 6}])
def test_the_first_token_of_a_word_has_its_label(made, arguments):
    data = made(**arguments)
    assert data.class_names == ["O", "B-PER", "I-PER"]
    train = data.splits["train"]
    batch = train[0, torch.arange(9)]
    assert batch["label"].shape == batch["input"].shape
    assert (batch["label"][~batch["mask"]] == NO_LABEL).all()
    several = 0
    for row, key in enumerate(batch["key"].tolist()):
        words, tags = data.parts["train"].texts[key], data.parts["train"].labels[key]
        encoding = data.tokenizer.inner.encode(words, is_pretokenized=True)
        expected, before = [], None
        for word in encoding.word_ids:
            expected.append(-100 if word is None or word == before else data.class_names.index(tags[word]))
            several += word is not None and word == before
            before = word
        width = int(batch["mask"][row].sum())
        cut = arguments.get("max_length")
        if cut and len(expected) > cut:
            expected = [*expected[: cut - 1], -100]
        assert batch["label"][row, :width].tolist() == expected
    assert several or arguments.get("tokenizer") != "bpe"


def test_few_labels_hide_all_of_a_sentences_and_none_of_others(made):
    data = made(labelled=10)
    batch = data.splits["train"][0, torch.arange(40)]
    assert int((batch["label"] >= 0).any(1).sum()) == 10
    assert (data.splits["test"][0, torch.arange(5)]["label"] >= 0).any(1).all()


def test_the_format_of_conll_with_several_columns(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER\n")
    rows = read_words(path, 0, -1, "utf-8")
    assert rows.texts == [["EU", "rejects"], ["Peter"]]
    assert rows.labels == [["B-ORG", "O"], ["B-PER"]]
    assert rows.places(1) == f"{path}, line 7"
    assert read_words(path, 0, 1, "utf-8").labels[0] == ["NNP", "VBZ"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a O\nb\n", "line 2: 1 columns; expected a word in column 0"),
        ("\n\n", "holds no sentence"),
        ("a\t\n", "line 1: an empty word or label"),
        ("a O\n# a comment line\n", "line 2: 4 columns; the lines before have 2"),
    ],
)
def test_a_damaged_file_is_said_with_its_line(tmp_path, content, said):
    (tmp_path / "a.conll").write_text(content)
    with pytest.raises(TutelageError, match=said):
        read_words(tmp_path / "a.conll", 0, -1, "utf-8")


def test_an_unknown_label_and_a_missing_file_are_said(made, tmp_path):
    (tmp_path / "test.conll").write_text("a O\nb B-LOC\n")
    with pytest.raises(TutelageError, match=r"test\.conll, line 1: its sentence has the label 'B-LOC', none of"):
        made(test=tmp_path / "test.conll")
    with pytest.raises(TutelageError, match="there is no file"):
        made(test=tmp_path / "nowhere.conll")


def test_sentences_without_tokens_and_words_as_their_own_labels_are_said(made, tmp_path):
    (tmp_path / "test.conll").write_text("a O\n\n\u200b O\n")
    with pytest.raises(TutelageError, match=r"test\.conll, line 3: .* finds no token in this text but special ones"):
        made(test=tmp_path / "test.conll").setup()
    with pytest.raises(TutelageError, match=r"data\.word=0 and data\.label=0 are the same column of 2"):
        made(label=0)


def test_labels_of_one_kind_are_no_task(tmp_path):
    (tmp_path / "a.conll").write_text("a O\n\nb O\n")
    with pytest.raises(TutelageError, match=r"a\.conll, line 1: all words have the label 'O'; expected at least two"):
        TaggedWords(train=tmp_path / "a.conll", batch_size=1, seed=0)
