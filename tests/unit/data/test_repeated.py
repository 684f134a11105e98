"""Repeated augmentation: several views of an example in an epoch, with mixing, caches, ranks and resumption."""

import pytest
import torch
from picture_folders import folder, write

from tutelage.config import factory, validate
from tutelage.data.augment import Flip
from tutelage.data.crops import RandomResizedCrop
from tutelage.data.dataset import DatasetData
from tutelage.data.mix import Mix
from tutelage.data.order import EpochOrder
from tutelage.data.samplers import Repeated
from tutelage.errors import TutelageError
from tutelage.runtime import devices

FIELDS = ("input", "label", "soft_label", "key", "view")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    write(path := tmp_path_factory.mktemp("images"), {"train": 8, "test": 2}, "jpg")
    return path


def made(root, **given):
    common = {"sampler": Repeated(3), "mix": Mix(), "augment": [RandomResizedCrop((0.3, 1.0)), Flip()]}
    return folder(root, **(common | {"batch_size": 6} | given))


def epoch(data, number, batch=0):
    loader = data.train_dataloader()
    loader.sampler.resume(number, batch)
    found = list(loader)
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


@pytest.mark.parametrize("views", [None, 4])
def test_an_epoch_has_three_views_of_a_third_and_each_is_that_of_its_number(root, views):
    data = made(root, views=views)
    found, plain = epoch(data, 2), data.splits["train"]
    assert len(data.train_dataloader()) == 3  # 18 training images
    assert found["key"].unique_consecutive(return_counts=True)[1].tolist() == [3] * 6
    assert found["view"].tolist() == [6, 7, 8] * 6 if views is None else [2, 3, 0] * 6
    place = {int(key): i for i, key in enumerate(plain.keys)}
    for row, (key, view) in enumerate(zip(found["key"].tolist(), found["view"].tolist(), strict=True)):
        one = plain[view, torch.tensor([place[key]])]  # without repeats view = epoch: as a cache is computed
        assert all(torch.equal(one[name][0], found[name][row]) for name in FIELDS)


def test_a_device_that_is_not_waited_for_draws_the_same(root, monkeypatch):
    here = epoch(made(root, views=2), 1)
    monkeypatch.setattr(devices, "waits", lambda device: True)
    there = epoch(made(root, views=2), 1)
    assert all(torch.equal(there[name], here[name]) for name in FIELDS)


def test_two_ranks_a_resumed_run_and_workers_see_the_same(root):
    data = made(root)
    whole, seen = epoch(data, 1), made(root, num_workers=1)
    rest = epoch(data, 1, batch=2)
    assert all(torch.equal(rest[name], whole[name][12:]) for name in FIELDS)
    read = epoch(seen, 1)
    assert all(torch.equal(read[name], whole[name]) for name in FIELDS)
    train, make = data._epoch()
    for rank in range(2):
        order: EpochOrder = make(size=len(train), seed=data.seed, rank=rank, world_size=2)
        order.set_epoch(1)
        for step, request in enumerate(order):
            part = slice(6 * step + 3 * rank, 6 * step + 3 * rank + 3)
            assert torch.equal(train[request]["input"], whole["input"][part])
    assert not torch.equal(epoch(data.with_seed(9), 1)["key"], whole["key"])


def test_images_in_memory_are_repeated_too(compose):
    data = factory.data(validate.check(compose("data.sampler={_target_: tutelage.data.samplers.Repeated}")).student)
    keys = epoch(data, 0)["key"]
    assert len(keys) == 512
    assert torch.equal(keys[:510:3], keys[2:512:3])
    assert data.splits["train"].repeated(2).moved(torch.Tensor.clone).times == 2


def test_users_samples_are_repeated_in_another_view():
    data = DatasetData(
        train=[(torch.zeros(1), i % 2) for i in range(40)], test=[(torch.zeros(1), i % 2) for i in range(4)], seed=0,
        batch_size=4, sampler=Repeated(2, round=1), train_transform=lambda x: x + torch.rand(1),
    )  # fmt: skip
    found = epoch(data, 1)
    assert found["view"].tolist() == [2, 3] * 18
    assert torch.equal(found["key"][::2], found["key"][1::2])
    assert not torch.equal(found["input"][::2], found["input"][1::2])


def test_what_has_no_views_or_repeats_itself_is_refused(compose, tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "".join(f"words {i}\t{i % 2}\n" for i in range(40)))
    data = factory.data(compose(f"data.train={tmp_path}/a.tsv", "data=text", "model@student=text_cnn"))
    data.sampler = Repeated()
    vars(data).pop("_loaded", None)  # looked at while the config was composed
    with pytest.raises(TutelageError, match=r"Repeated shows several views of an example; .* has none"):
        data.setup()
    with pytest.raises(TutelageError, match=r"data.repeat=2: data.sampler repeats examples, too"):
        DatasetData(
            train=[(torch.zeros(1), i % 2) for i in range(40)], seed=0, batch_size=4, repeat=2, sampler=Repeated()
        )
