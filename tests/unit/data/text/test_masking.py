"""data=sentences: hidden tokens and their labels are a function of (seed, view, key), whatever else is in a batch."""

import pytest
import torch
from texts import reviews

from tutelage.data.text.masking import MaskTokens
from tutelage.data.text.sentences import Sentences
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

pytest.importorskip("tokenizers")


@pytest.fixture
def made(tmp_path):
    (tmp_path / "train.txt").write_text("".join(f"{text}\n" for text, _ in reviews(300)))

    def make(masking=None, **arguments):
        given = {"batch_size": 8, "seed": 0, "val_size": 30, "test_size": 30} | arguments
        return Sentences(train=tmp_path / "train.txt", masking=masking or MaskTokens(), **given)

    return make


def test_labels_are_the_ids_of_hidden_tokens_and_nothing_else_changes(made):
    data = made()
    train = data.splits["train"]
    batch = train[0, torch.arange(len(train))]
    plain = torch.full_like(batch["input"], data.tokenizer.pad)
    for row, key in enumerate(batch["key"].tolist()):
        ids = train.tokens.ids[train.tokens.offsets[key] : train.tokens.offsets[key + 1]]
        plain[row, : len(ids)] = ids
    chosen = batch["label"] != NO_LABEL
    assert torch.equal(batch["label"][chosen], plain[chosen])
    assert torch.equal(batch["input"][~chosen], plain[~chosen])
    assert chosen.any(1).all()  # at least one of a text
    assert not chosen[~batch["mask"]].any()
    assert not torch.isin(plain[chosen], torch.tensor(data.tokenizer.special)).any()
    assert (data.num_classes, data.num_outputs) == (data.vocab_size, data.vocab_size)


def test_fifteen_of_a_hundred_are_chosen_of_which_eighty_are_masked_ten_random_and_ten_kept():
    class Known:
        mask, special, size, name = 4, (0, 1, 2, 3, 4), 1000, "made up"

    step = MaskTokens()
    step.prepare(Known())
    chance = torch.rand(200, 500, 3, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(5, 1000, (200, 500), generator=torch.Generator().manual_seed(1))
    found = step({"input": ids, "mask": torch.ones_like(ids, dtype=torch.bool)}, chance)
    chosen = found["label"] != NO_LABEL
    assert chosen.float().mean() == pytest.approx(0.15, abs=0.004)
    became = found["input"][chosen]
    masked, kept = (became == 4).float().mean(), (became == ids[chosen]).float().mean()
    assert masked == pytest.approx(0.8, abs=0.015)
    assert kept == pytest.approx(0.1, abs=0.015)
    assert (became[became != 4] >= 5).all()


def test_masks_are_a_function_of_seed_view_and_key(made):
    train = made(seed=1).splits["train"]
    one, again, other = (train[epoch, torch.arange(6)] for epoch in (0, 0, 1))
    assert torch.equal(one["input"], again["input"])
    assert not torch.equal(one["label"], other["label"])
    alone = train[0, torch.tensor([4])]
    width = alone["input"].shape[1]
    for name in ("input", "label"):  # whatever the batch and its padding
        assert torch.equal(alone[name][0], one[name][4, :width])
    wide = made(seed=1, pad="max").splits["train"][0, torch.arange(6)]
    assert torch.equal(wide["label"][:, : one["label"].shape[1]], one["label"])
    assert not torch.equal(made(seed=2).splits["train"][0, torch.arange(6)]["label"], one["label"])
    viewed = made(seed=1, views=2).splits["train"]
    assert torch.equal(viewed[2, torch.arange(6)]["label"], one["label"])
    assert viewed[3, torch.arange(6)]["view"].tolist() == [1] * 6


def test_validation_and_test_hide_the_same_tokens_in_all_runs(made):
    for split in ("val", "test"):
        batches = [made(seed=seed).splits[split][epoch, torch.arange(5)] for seed, epoch in ((0, 0), (1, 3))]
        assert torch.equal(batches[0]["input"], batches[1]["input"])
        assert torch.equal(batches[0]["label"], batches[1]["label"])


def test_mistakes_are_said(made, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    for arguments, said in (
        ({"probability": 1.5}, r"MaskTokens: probability must be in \(0, 1\]; found 1\.5"),
        ({"probability": 0.0}, r"MaskTokens: probability must be in \(0, 1\]; found 0\.0"),
        ({"random": 0.6, "keep": 0.5}, r"random \+ keep must be in"),
    ):
        with pytest.raises(TutelageError, match=said):
            MaskTokens(**arguments)
    with pytest.raises(TutelageError, match="dict is no tutelage"):
        made({"probability": 0.1})
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0, "[UNK]": 1}, unk_token="[UNK]"))
    inner.save(str(tmp_path / "bare.json"))
    with pytest.raises(TutelageError, match=r"bare\.json has no token \[MASK\] or <mask>"):
        made(tokenizer=str(tmp_path / "bare.json"))
