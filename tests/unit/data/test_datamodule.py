"""data=datamodule: the datasets of anyone's LightningDataModule under our order and chance."""

import logging

import lightning as L
import own_data
import pytest
import torch
from own_data import Module, Pictures, Stream
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from tutelage.data import parts
from tutelage.data.datamodule import ModuleData
from tutelage.data.dataset import DatasetData
from tutelage.data.samplers import Shuffled
from tutelage.errors import TutelageError


class Alternate(SequentialSampler):
    def __iter__(self):
        yield from [*range(0, 600, 2), *range(1, 600, 2)]


class Batches(BatchSampler):
    def __init__(self, *arguments):
        super().__init__(SequentialSampler(arguments[0]), *arguments[1:])


def data(module=None, **arguments):
    return ModuleData(datamodule=module or Module(), **({"batch_size": 16, "seed": 0, "val_size": 50} | arguments))


def first(made, epoch=0):
    loader = made.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return next(iter(loader))


def test_its_datasets_are_ours_to_order():
    made = data(Module(drawn=False))
    assert {part: len(made.splits[part]) for part in made.splits} == {"train": 600, "val": 300, "test": 297}
    assert made.class_names[1] == "one"
    images, labels = own_data.digits("train")
    batch = first(made)
    assert torch.equal(batch["input"], torch.from_numpy(images[batch["key"]])[:, None].float() / 255)
    assert batch["label"].tolist() == labels[batch["key"]].tolist()
    assert not torch.equal(batch["key"], first(made, 1)["key"])


def test_its_own_split_is_a_function_of_split_seed():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one = data().splits["val"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again, other = data().splits["val"], data(split_seed=1).splits["val"]
    rows = torch.arange(100)
    assert torch.equal(one[0, rows]["input"], again[0, rows]["input"])
    assert not torch.equal(one[0, rows]["input"], other[0, rows]["input"])


class Sampled(L.LightningDataModule):
    """Pictures of which loaders take a part, or in an order of their own."""

    def __init__(self, train=None, val=None, **more):
        super().__init__()
        self.samplers, self.more = {"train": train, "val": val}, more

    def _loader(self, part):
        own = self.samplers[part]
        given = {"batch_sampler": own} if isinstance(own, BatchSampler) else {"sampler": own, "batch_size": 16}
        return DataLoader(Pictures(), **given, **self.more)

    def train_dataloader(self):
        return self._loader("train")

    def val_dataloader(self):
        return self._loader("val")


def drawn(made, epoch=0):
    loader = made.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return torch.cat([batch["key"] for batch in loader])


def test_a_weighted_sampler_weighs_as_a_function_of_seed_and_epoch():
    weights = [0.0] * 300 + [1.0] * 300
    made = data(Sampled(WeightedRandomSampler(weights, 100, replacement=False)))  # test examples are drawn from train
    keys = drawn(made)
    images, _ = own_data.digits("train")
    batch = first(made)
    upper = {images[row].tobytes() for row in range(300, 600)}
    assert all((x * 255).round().byte().numpy().tobytes() in upper for x in batch["input"])
    assert len(keys) == 96 == len(set(keys.tolist()))  # six batches of 16 of the 100
    assert torch.equal(keys, drawn(data(Sampled(WeightedRandomSampler(weights, 100, replacement=False)))))
    assert not torch.equal(keys, drawn(made, 1))


def test_a_subset_of_a_loader_is_all_that_is_used_of_it():
    halves = [SubsetRandomSampler(range(start, 600, 2)) for start in (0, 1)]
    made = data(Sampled(*halves, collate_fn=own_data.stack), test_size=30)
    images, _ = own_data.digits("train")
    for part, start in (("val", 1), ("train", 0)):
        rows = torch.arange(len(made.splits[part]))
        found = {x.numpy().tobytes() for x in (made.splits[part][0, rows]["input"] * 255).round().byte()}
        assert found <= {image.tobytes() for image in images[start::2]}
    assert len(made.splits["val"]) == 300


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        (
            Alternate(range(600)),
            None,
            r"data\.train: the loader's Alternate can't be used.*data\.sampler=… takes its place",
        ),
        (RandomSampler(range(600), replacement=True), None, r"data\.train: the loader's RandomSampler can't be used"),
        (Batches(range(600), 8, False), None, r"data\.train: the loader's Batches can't be used"),
        (None, WeightedRandomSampler([1.0] * 600, 5), r"data\.val: the loader's WeightedRandomSampler can't be used"),
    ],
)
def test_an_order_of_one_s_own_is_refused_or_replaced_knowingly(train, val, said):
    with pytest.raises(TutelageError, match=said):
        data(Sampled(train, val))
    if train is not None:
        assert len(drawn(data(Sampled(train), sampler=Shuffled(), test_size=60))) == 528  # 33 batches of 16


def test_a_worker_init_fn_is_not_dropped_silently(caplog):
    data(Sampled(worker_init_fn=print))
    assert "data.train: the loader's worker_init_fn is not called" in caplog.text


def test_a_stream_is_read_once_where_it_fits(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    made = data(Module(stream=True))
    assert len(made.splits["test"]) == 300
    assert "data.test: 300 samples of Stream were read into memory, once" in caplog.messages
    monkeypatch.setattr(parts, "free_memory", lambda: 2_000)
    with pytest.raises(TutelageError, match=r"data.train: Stream can only be read from its beginning, and more"):
        DatasetData(train=Stream(), seed=0, batch_size=8)


class Broken(L.LightningDataModule):
    def __init__(self, train=None, fails=""):
        super().__init__()
        self.given, self.fails = train, fails

    def setup(self, stage):
        if self.fails == stage:
            raise FileNotFoundError("data.csv")

    def train_dataloader(self):
        return self.given


class Moving(Broken):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Moving(DataLoader(Pictures())), "Moving.on_after_batch_transfer would not be called, .*data.transform"),
        (Pictures, "expected a LightningDataModule; found Pictures"),
        (L.LightningDataModule(), "LightningDataModule has no train_dataloader"),
        (Broken(fails="fit"), r"Broken.setup\('fit'\) failed: FileNotFoundError: data.csv"),
        (Broken([1, 2]), "Broken.train_dataloader gives list; expected one DataLoader"),
    ],
)
def test_bad_modules(module, said):
    with pytest.raises(TutelageError, match=said):
        data(module)
