"""Signals of tokens are stored whatever the lengths of the texts, and read as wide as the batch."""

import pytest
import torch
from texts import reviews, tsv
from torch import nn

from tutelage.data.text.files import TextFiles
from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.models.text_transformer import TextTransformer
from tutelage.pipeline.signal_columns import columns
from tutelage.pipeline.teacher_cache import write_signals
from tutelage.sources.cached import Cached
from tutelage.sources.frozen import Frozen

pytest.importorskip("tokenizers")
CPU = torch.device("cpu")


class Table(nn.Module):
    """Looks all its answers up, so that they are the same bits in a batch of any shape."""

    def __init__(self, vocab_size: int, window: int = 0):
        super().__init__()
        self.words, self.window = nn.Embedding(vocab_size, 4), window
        self.pairs = nn.Identity()

    def forward(self, ids):
        if self.window:
            ids = ids[:, : -self.window]
        self.pairs((ids[:, None, :, None] - ids[:, None, None, :]).float().expand(-1, 2, -1, -1))
        return self.words(ids)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tsv(tmp_path_factory.mktemp("texts") / "a.tsv", reviews(60))
    return TextFiles(train=path, batch_size=8, seed=0, max_length=40, val_size=10, test_size=10)


def cached(data, source, needs, folder, top=None, dtype="float32"):
    source.attach(needs, {})
    write_signals(source, data, folder, dtype, top, 1, CPU)
    found = Cached(None, str(folder))
    found.attach(needs, {})
    return found


def batches(data):
    train = data.splits["train"]
    found = [train[0, torch.arange(first, min(first + 8, len(train)))] for first in range(0, len(train), 8)]
    assert len({batch["input"].shape[1] for batch in found}) > 1
    return found


def test_cached_tokens_are_the_live_ones_to_the_bit_in_batches_of_any_width(data, tmp_path):
    teacher = Frozen(Tapped(Table(data.vocab_size), {"words": "words", "pairs": "pairs"}))
    stored = cached(data, teacher, {"logits", "words", "pairs"}, tmp_path)
    for batch in batches(data):
        live, found = teacher(batch), stored(batch)
        assert live.keys() == found.keys()
        for name in live:
            assert torch.equal(found[name], live[name]), name


def test_the_top_classes_of_tokens_are_cut_to_the_batch_too(data, tmp_path):
    teacher = Frozen(Tapped(Table(data.vocab_size)))
    stored = cached(data, teacher, {"logits"}, tmp_path, top=4)  # all of them
    for batch in batches(data):
        torch.testing.assert_close(stored(batch)["logits"], teacher(batch)["logits"].log_softmax(-1))


def test_a_transformers_cached_states_are_the_live_ones_to_rounding_padding_included(data, tmp_path):
    net = TextTransformer(data.vocab_size, 2, width=16, layers=2, heads=2, length=40).eval()
    reads = {"input": "input", "mask": "mask?"}
    teacher = Frozen(Tapped(net, {"states": "layers.1", "query": "layers.0.query"}, reads=reads))
    stored = cached(data, teacher, {"logits", "states", "query"}, tmp_path)
    for batch in batches(data):
        live, found = teacher(batch), stored(batch)
        for name in live:
            torch.testing.assert_close(found[name], live[name], rtol=1e-4, atol=1e-5)


def test_signals_of_whole_texts_have_no_axis_of_tokens_and_those_of_tokens_are_as_long_as_the_longest(data):
    net = TextTransformer(data.vocab_size, 2, width=16, layers=1, heads=2, length=40)
    teacher = Frozen(Tapped(net, {"states": "layers.0"}, reads={"input": "input", "mask": "mask?"})).eval()
    teacher.attach({"logits", "states"}, {})
    found = {column.name: column for column in columns(teacher, data, "float32", None, CPU)}
    longest = max(batch["input"].shape[1] for batch in batches(data))
    assert (found["logits"].shape, found["logits"].tokens) == ((2,), ())
    assert (found["states"].shape, found["states"].tokens) == ((longest, 16), (0,))


def test_a_signal_of_another_length_than_the_text_is_one_sentence(data):
    teacher = Frozen(Tapped(Table(data.vocab_size, window=1))).eval()
    teacher.attach({"logits"}, {})
    with pytest.raises(TutelageError, match=r"the signal 'logits' of a text of \d+ tokens .*; set data.pad=max"):
        columns(teacher, data, "float32", None, CPU)
