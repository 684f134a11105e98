"""data=datamodule: the datasets of anyone's LightningDataModule under our order and chance."""

import logging

import lightning as L
import own_data
import pytest
import torch
from own_data import Module, Pictures, Stream

from tutelage.data import parts
from tutelage.data.datamodule import ModuleData
from tutelage.data.dataset import DatasetData
from tutelage.errors import TutelageError


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


def test_a_sampler_of_its_own_is_not_used_and_one_line_says_so(caplog):
    made = data(Module(weighted=True))
    [line] = caplog.messages
    assert "the loader's WeightedRandomSampler is not used" in line
    assert len(made.splits["train"]) == 500


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


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Pictures, "expected a LightningDataModule; found Pictures"),
        (L.LightningDataModule(), "LightningDataModule has no train_dataloader"),
        (Broken(fails="fit"), r"Broken.setup\('fit'\) failed: FileNotFoundError: data.csv"),
        (Broken([1, 2]), "Broken.train_dataloader gives list; expected one DataLoader"),
    ],
)
def test_bad_modules(module, said):
    with pytest.raises(TutelageError, match=said):
        data(module)
