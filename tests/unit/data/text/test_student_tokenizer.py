"""data.student_tokenizer: the student reads the same texts in ids of its own."""

import pytest
import torch
from texts import conll, reviews, tsv

from tutelage.config import factory
from tutelage.config.plan import plan_job
from tutelage.data.text.files import FurtherTexts, TextFiles
from tutelage.data.text.tagging import TaggedWords
from tutelage.data.text.tang import TangRewrite
from tutelage.errors import TutelageError
from tutelage.pipeline.try_out import try_out

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def made(tmp_path):
    tsv(tmp_path / "train.tsv", reviews(60))

    def make(**arguments):
        given = {"batch_size": 8, "seed": 0, "val_size": 10, "test_size": 10, "tokenizer": "bpe",
                 "max_vocab_size": 40, "student_tokenizer": "words"} | arguments  # fmt: skip
        return TextFiles(train=tmp_path / "train.tsv", **given)

    return make


@pytest.mark.parametrize("augment", [None, [TangRewrite(same_tag=0)]])
def test_a_batch_has_the_same_texts_in_both_ids_rewritten_or_not(made, augment):
    data = made(augment=augment)
    batch = data.splits["train"][1, torch.arange(9)]
    encoders = {"": data.encode, "student_": data.student_encode}
    for row, key in enumerate(batch["key"].tolist()):
        text = data.parts["train"].texts[key]
        text = text if augment is None else data.augment.text(text, key, 1)
        for whose, encode in encoders.items():
            own = batch[f"{whose}input"][row][batch[f"{whose}mask"][row]].tolist()
            assert own == encode.tokenizer.inner.encode(text).ids
    assert batch["input"].shape[1] > batch["student_input"].shape[1]  # pieces of words
    assert data.student_vocab_size == data.student_encode.tokenizer.size != data.vocab_size
    assert data.fingerprint() != made(student_tokenizer=None).fingerprint()


class Unknown:
    """Rewrites every text to a word that no training text has."""

    def prepare_words(self, texts, tokenizer, cache):
        self.prepared = len(texts)

    def rewritten(self, words, chance):
        return ["zzz"]


def test_a_rewriting_in_which_the_students_tokenizer_finds_nothing_leaves_the_text_as_it_was(made, tmp_path):
    letters = sorted({letter for text, _ in reviews(60) for letter in text} - {"z"})
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    inner.save(str(tmp_path / "letters.json"))
    data = made(student_tokenizer=str(tmp_path / "letters.json"), augment=[Unknown()])
    batch = data.splits["train"][1, torch.arange(3)]
    read = [row[mask].tolist() for row, mask in zip(batch["student_input"], batch["student_mask"], strict=True)]
    texts = [data.parts["train"].texts[key] for key in batch["key"].tolist()]
    assert read == [[letters.index(letter) for letter in text if letter != "z"] for text in texts]


def test_a_tokenizer_that_cannot_read_a_text_is_one_sentence(made, tmp_path):
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"film": 0}))
    inner.save(str(tmp_path / "words.json"))
    with pytest.raises(TutelageError, match=r"words\.json can't read a text: WordLevel error: Missing \[UNK\]"):
        _ = made(student_tokenizer=str(tmp_path / "words.json")).splits


def test_further_texts_are_read_in_both(made, tmp_path):
    tsv(tmp_path / "more.tsv", reviews(20, seed=5))
    train = made(unlabelled=[FurtherTexts(path=tmp_path / "more.tsv")]).splits["train"]
    batch = train[0, torch.arange(len(train))]
    assert batch["student_mask"].any(1).all()
    assert len(batch["input"]) == 40 + 20


def test_labels_of_tokens_and_another_tokenizer_than_the_configs_are_refused(made, tmp_path):
    conll(tmp_path / "names.conll", 60)
    with pytest.raises(TutelageError, match=r"data\.student_tokenizer=words: labels are of tokens here"):
        TaggedWords(train=tmp_path / "names.conll", student_tokenizer="words", batch_size=8, seed=0)
    with pytest.raises(TutelageError, match=r"data\.student_tokenizer: .* is another tokenizer"):
        made(student_tokenizer_digest="0" * 64)


OWN = ["model@student=text_transformer", "loss=text/minilm", "student.reads={input: student_input, mask: student_mask}"]
TOKENS = r"loss\.terms\.relations compares student\.\w+ token by token, and the student has a tokenizer of its own"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["model@student=text_cnn_words", "loss=logit_mse"], None),
        (OWN, TOKENS),
        (["model@student=text_cnn_words", "student.net.vocab_size=7"], "TextCNN has a vocabulary of 7 ids"),
    ],
)
def test_losses_of_texts_fit_and_those_of_tokens_are_refused(compose, made, tmp_path, more, message):
    made()
    cfg = compose("data=text", f"data.train={tmp_path}/train.tsv", "data.tokenizer=bpe", "data.max_vocab_size=40",
                  "data.student_tokenizer=words", "data.batch_size=8", "data.val_size=10", "data.test_size=10",
                  "model@teacher=text_transformer", *more)  # fmt: skip
    plan = plan_job(cfg)
    data = factory.data(plan.student)
    if message is None:
        try_out(plan, data)
        return
    with pytest.raises(TutelageError, match=message):
        try_out(plan, data)
