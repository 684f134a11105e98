import dataclasses
import pickle
from itertools import chain

import numpy as np
import pytest
import torch
from torch import distributed

from tutelage.data.augment import Flip, Shift
from tutelage.data.base import ImageData
from tutelage.data.examples import Examples, ImageSet, divide
from tutelage.data.order import EpochOrder
from tutelage.data.pixels import MemoryPixels
from tutelage.errors import TutelageError


class Toy(ImageData):
    """40 training and 10 test images whose every pixel says which one it is."""

    def __init__(self, *, train=40, test=10, dtype=torch.float32, edit=lambda train, test: None, **common):
        defaults = {"num_classes": 3, "input_shape": (2, 4, 4), "batch_size": 8, "val_size": 10, "seed": 1}
        super().__init__(**(defaults | {"mean": [0.25, 0.5], "std": [0.5, 0.25]} | common))
        self.counts, self.dtype, self.edit, self.loads = (train, test), dtype, edit, 0

    def load(self):
        self.loads += 1
        parts = tuple(self.make(count, first) for first, count in enumerate(self.counts))
        self.edit(*parts)
        return parts

    def make(self, count, first):
        images = (torch.arange(count)[:, None, None, None] + 100 * first).expand(count, 2, 4, 4)
        images = images.to(torch.uint8) if self.dtype == torch.uint8 else images / 255
        return Examples(MemoryPixels(images.clone()), torch.arange(count) % 3)


def gather(loader):
    found = list(loader)
    return {name: torch.cat([batch[name] for batch in found]) for name in found[0]}


def expected_input(value):
    return torch.stack([(value / 255 - 0.25) / 0.5, (value / 255 - 0.5) / 0.25], 1)[:, :, None, None].expand(
        -1, 2, 4, 4
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("augment", [None, [Shift(1)]])
def test_batches_hold_the_normalised_image_the_label_and_the_key(dtype, augment):
    data = Toy(dtype=dtype, augment=augment)
    for loader, first in (
        (data.val_dataloader(), 0),
        (data.whole("train"), 0),
        (data.whole("train"), 0),
        (data.whole("test"), 100),
    ):
        batch = gather(loader)
        assert {name: x.dtype for name, x in batch.items()} == {
            "input": torch.float32,
            "label": torch.int64,
            "key": torch.int64,
        }
        torch.testing.assert_close(batch["input"], expected_input((batch["key"] + first).float()))
        assert torch.equal(batch["label"], batch["key"] % 3)


def test_train_val_and_test_have_each_example_once():
    data = Toy()
    train, val = gather(data.whole("train"))["key"], gather(data.val_dataloader())["key"]
    assert len(train) == 30
    assert len(val) == 10
    assert torch.cat([train, val]).sort().values.tolist() == list(range(40))
    assert gather(data.whole("test"))["key"].tolist() == list(range(10))


def test_the_split_is_a_function_of_split_seed_alone():
    def split(**arguments):
        return Toy(**arguments).splits["val"].keys.tolist()

    assert split() == split(seed=99, batch_size=3, augment=[Flip()]) == split(val_size=0.25)
    assert split() != split(split_seed=1)
    rest, taken = divide(40, 10, "data.val_size", 0, "val")
    assert split() == taken.tolist() == sorted(taken.tolist())
    assert sorted(rest.tolist() + taken.tolist()) == list(range(40))


def test_training_batches_follow_the_order_of_seed_and_epoch():
    data = Toy(seed=5)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(3)
    order = EpochOrder(30, 8, 5, shuffle=True, drop_last=True)
    order.set_epoch(3)
    keys = data.splits["train"].keys
    assert [batch["key"].tolist() for batch in loader] == [keys[indices].tolist() for _, indices in order]


def test_augmentation_is_for_training_only_and_follows_the_epoch():
    data, plain = Toy(augment=[Shift(1)]), Toy()
    loaders = data.train_dataloader(), plain.train_dataloader()
    views = []
    for epoch in (0, 1):
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
        augmented, expected = gather(loaders[0]), gather(loaders[1])
        assert torch.equal(augmented["key"], expected["key"])
        changed = (augmented["input"] != expected["input"]).flatten(1).any(1)
        assert changed.float().mean() > 0.5
        views.append(dict(zip(augmented["key"].tolist(), augmented["input"], strict=True)))
        black = torch.tensor([-0.5, -2.0])[:, None, None]  # the edge that comes in is black before normalisation
        for picture, other in zip(augmented["input"], expected["input"], strict=True):
            assert ((picture == other) | (picture == black)).all()
    assert any(not torch.equal(views[0][key], views[1][key]) for key in views[0].keys() & views[1].keys())
    for index, key in enumerate(data.splits["train"].keys.tolist()):  # in a batch of its own it is the same picture
        if key in views[1]:
            assert torch.equal(data.splits["train"][1, torch.tensor([index])]["input"][0], views[1][key])
    assert torch.equal(gather(data.val_dataloader())["input"], gather(plain.val_dataloader())["input"])


def test_sample_is_the_first_training_examples_and_disturbs_nothing():
    data = Toy(augment=[Shift(1)])
    state = torch.get_rng_state()
    sample = data.sample(4)
    keys = data.splits["train"].keys[:4]
    assert torch.equal(sample["key"], keys)
    torch.testing.assert_close(sample["input"], expected_input(keys.float()))
    sample["input"].zero_()
    torch.testing.assert_close(data.sample(4)["input"], expected_input(keys.float()))
    assert len(data.sample(1000)["key"]) == 30
    assert torch.equal(torch.get_rng_state(), state)


def test_loading_happens_once():
    data = Toy()
    data.setup()
    data.setup("fit")
    data.train_dataloader()
    data.fingerprint()
    assert data.loads == 1
    assert not data.is_streaming


def test_splits_share_the_memory_of_the_pixels():
    data = Toy()
    train, val = (data.splits[part].examples.pixels.images for part in ("train", "val"))
    assert train.data_ptr() == val.data_ptr()


def test_the_fingerprint_follows_the_content_alone():
    def image(train, test):
        train.pixels.images[17, 1, 2, 3] += 1e-3

    def test_image(train, test):
        test.pixels.images[3, 0, 0, 0] += 1e-3

    def label(train, test):
        train.labels[5] = 0

    same = Toy().fingerprint()
    assert same == Toy(seed=9, split_seed=4, batch_size=5, augment=[Flip()]).fingerprint()
    assert len(same) == 64
    others = [Toy(edit=edit).fingerprint() for edit in (image, test_image, label)] + [Toy(train=41).fingerprint()]
    assert len({same, *others}) == 5


@pytest.mark.parametrize("bad", [-1, 3, 255])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_label_that_is_no_class_is_named(part, bad):
    def edit(train, test):
        labels = (train if part == "train" else test).labels
        labels[[7, 9]] = bad

    with pytest.raises(TutelageError, match=rf"^Toy {part}: .* index 7: its label is {bad}; expected 0 to 2 \(2 of"):
        Toy(edit=edit).setup()


class Changed(Toy):
    """The toy data with a field of the training examples exchanged."""

    def __init__(self, **fields):
        super().__init__()
        self.fields = fields

    def load(self):
        train, test = super().load()
        return dataclasses.replace(train, **self.fields), test


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": torch.zeros(40)}, "must be integers; found torch.float32"),
        ({"labels": torch.zeros(40, dtype=torch.bool)}, "must be integers; found torch.bool"),
        ({"labels": torch.zeros(39, dtype=torch.int64)}, "40 images but 39 labels"),
        ({"pixels": MemoryPixels(torch.zeros(40, 2, 4, 5))}, r"shape \[2, 4, 5\]; input_shape says \[2, 4, 4\]"),
        ({"pixels": MemoryPixels(torch.zeros(40, 4, 4))}, r"shape \[4, 4\]"),
        ({"pixels": MemoryPixels(torch.zeros(40, 2, 4, 4).double())}, "uint8 or float32; found torch.float64"),
    ],
)
def test_what_is_not_what_the_config_says_is_refused(fields, message):
    with pytest.raises(TutelageError, match=f"Changed train: .*{message}"):
        Changed(**fields).setup()


@pytest.mark.parametrize("labels", [torch.uint8, torch.int32])
def test_labels_of_any_integer_type_become_int64(labels):
    data = Changed(labels=(torch.arange(40) % 3).to(labels))
    assert data.sample(3)["label"].dtype == torch.int64


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_that_is_not_finite_is_named_unless_told_not_to(value):
    def edit(train, test):
        test.pixels.images[6, 1, 3, 3] = value

    with pytest.raises(TutelageError, match="Toy test: the image at index 6 is not finite"):
        Toy(edit=edit).setup()
    assert not Toy(edit=edit, check_finite=False).splits["test"][0, torch.tensor([6])]["input"].isfinite().all()


@pytest.mark.parametrize("batch_size", [31, 64])
def test_too_few_training_examples_for_one_batch(batch_size):
    with pytest.raises(TutelageError, match=rf"30 training examples .* batch of {batch_size}"):
        Toy(batch_size=batch_size).setup()
    assert len(Toy(batch_size=batch_size, drop_last=False).train_dataloader()) == 1
    assert len(Toy(batch_size=30).train_dataloader()) == 1


def test_an_empty_test_set_is_refused():
    with pytest.raises(TutelageError, match=r"the test split is empty: .*'train': 30"):
        Toy(test=0).setup()


@pytest.mark.parametrize("val_size", [0, 0.0, 0.001, 40, 100, -1, 1.5, float("nan"), 0.999])
def test_a_validation_split_that_takes_nothing_or_everything(val_size):
    with pytest.raises(TutelageError, match=rf"data.val_size={val_size} of 40 examples"):
        Toy(val_size=val_size).setup()


@pytest.mark.parametrize("count", [0, 1])
def test_a_training_set_too_small_to_split(count):
    with pytest.raises(TutelageError, match=f"of {count} examples"):
        Toy(train=count).setup()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1; found 0"),
        ({"batch_size": 0}, "batch_size must be at least 1; found 0"),
        ({"eval_batch_size": 0}, "eval_batch_size must be at least 1"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
        ({"input_shape": (4, 4)}, r"found \[4, 4\]"),
        ({"mean": [0.5]}, "mean needs 2 numbers"),
        ({"std": [0.5, 0.0]}, "std must be above 0"),
        ({"class_names": ["a"]}, "1 names for 3 classes"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(TutelageError, match=message):
        Toy(**arguments)


def test_ranks_come_from_the_process_group(monkeypatch):
    whole = [batch["key"].tolist() for batch in Toy().train_dataloader()]
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    train, val = [], []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        data = Toy(eval_batch_size=4)
        train.append([batch["key"].tolist() for batch in data.train_dataloader()])
        val.append([batch["key"].tolist() for batch in data.val_dataloader()])
        assert gather(data.whole("val"))["key"].tolist() == data.splits["val"].keys.tolist()
    assert [a + b for a, b in zip(*train, strict=True)] == whole
    assert len(val[0]) == len(val[1])
    assert sorted(chain(*val[0], *val[1])) == data.splits["val"].keys.tolist()


def test_datasets_can_be_sent_to_a_spawned_worker():
    dataset = Toy(augment=[Shift(1), Flip()]).splits["train"]
    copy: ImageSet = pickle.loads(pickle.dumps(dataset))
    request = (3, torch.tensor([5, 1]))
    assert all(torch.equal(copy[request][name], x) for name, x in dataset[request].items())


def test_memory_pixels_of_bytes_span_zero_to_one():
    images = torch.from_numpy(np.arange(256, dtype=np.uint8)).view(256, 1, 1, 1)
    found = MemoryPixels(images)[torch.arange(256)].flatten()
    assert torch.equal(found, torch.arange(256) / 255)
