"""Datasets on the training device: the same batches, nothing of the host in them, and no more memory than allowed."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tutelage.data import resident
from tutelage.data.augment import Augment, Flip, Shift
from tutelage.data.examples import Examples, ImageSet, Normalise
from tutelage.data.order import EpochLoader, EpochOrder
from tutelage.data.pixels import JoinedPixels, MemoryPixels
from tutelage.data.resident import Residence
from tutelage.stacked.data import StackedData, _Orders, _Sets

N, BATCH = 250, 8


def dataset(augment=None, dtype=torch.uint8):
    images = torch.randint(0, 256, (300, 3, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = MemoryPixels(images if dtype == torch.uint8 else images.float())
    keys = torch.randperm(300, generator=torch.Generator().manual_seed(1))[:N]
    normalise = Normalise(torch.tensor([0.1, 0.2, 0.3])[:, None, None], torch.tensor([0.3, 0.2, 0.1])[:, None, None])
    return ImageSet(Examples(pixels, torch.arange(300) % 10), keys, normalise, augment)


AUGMENT = Augment([Shift(2), Flip()], seed=3)


def batches(data, residence, resume=None, **ranks):
    order = EpochOrder(N, BATCH, 5, shuffle=True, drop_last=False, **ranks)
    loader = EpochLoader(data, order, residence=residence)
    order.set_epoch(2)
    if resume:
        loader.load_state_dict({"epoch": 2, "batch": resume})
    return list(loader)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in other)


@pytest.mark.parametrize("ranks", [{}, {"rank": 1, "world_size": 2}])
@pytest.mark.parametrize("augment", [None, AUGMENT])
def test_batches_are_those_of_the_host_to_the_bit(augment, ranks, monkeypatch):
    data = dataset(augment)
    expected = batches(data, None, **ranks)
    assert_same(batches(data, Residence(torch.device("cpu")), **ranks), expected)
    assert_same(batches(data, Residence(torch.device("cpu")), resume=7, **ranks), expected[7:])


def test_batches_are_cut_from_chunks(monkeypatch):
    asked = []
    fetch = ImageSet.__getitem__
    monkeypatch.setattr(ImageSet, "__getitem__", lambda self, it: (asked.append(len(it[1])), fetch(self, it))[1])
    found = batches(dataset(), Residence(torch.device("cpu")))
    assert [len(batch["key"]) for batch in found] == [8] * 31 + [2]
    assert asked == [8, 242]


@pytest.mark.parametrize("augment", [None, AUGMENT])
def test_a_stack_has_the_same_batches(augment):
    own = [dataset(augment and Augment(augment.steps, seed)) for seed in ((4, 9) if augment else (4,))]

    def stacked(residence):
        return list(EpochLoader(_Sets(own), _Orders([4, 9], N, BATCH, drop_last=True), residence=residence))

    expected = stacked(None)
    assert expected[3]["input"].shape == (2, BATCH, 3, 6, 6)
    assert_same(stacked(Residence(torch.device("cpu"))), expected)


@pytest.mark.parametrize("augment", [None, AUGMENT])
def test_nothing_of_the_host_is_in_a_step(augment, monkeypatch):
    """On a fake GPU an operation on two devices raises, and so does one whose shape or value the host must wait for."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        device = torch.device("cuda:0")
        for batch in batches(dataset(augment), Residence(device)):
            assert {name: x.device for name, x in batch.items()} == dict.fromkeys(batch, device)


def test_the_order_of_an_epoch_is_copied_once(monkeypatch):
    copied = []
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *a, **k: (copied.append(tuple(x.shape)), to(x, *a, **k))[1])
    data, residence = dataset(), Residence(torch.device("cpu"))
    batches(data, residence)
    assert copied.count((N,)) == 2  # the keys, once; the order
    batches(data, residence)
    assert copied.count((N,)) == 3
    assert copied.count((300, 3, 6, 6)) == 1


def test_images_stay_bytes(monkeypatch):
    assert Residence(torch.device("meta")).take(dataset(AUGMENT)).examples.pixels.images.dtype == torch.uint8


def test_at_most_a_quarter_of_the_free_memory_is_taken(monkeypatch):
    data = dataset()
    size = data.examples.pixels.images.nbytes + data.examples.labels.nbytes + data.keys.nbytes + 2 * 12
    other = dataset()
    for free, taken in ((4 * size, [True, False]), (4 * size - 1, [False, False]), (8 * size, [True, True])):
        monkeypatch.setattr(resident, "free_memory", lambda device, free=free: free)
        residence = Residence(torch.device("meta"))
        assert [residence.take(one) is not None for one in (data, other)] == taken
        assert (residence.take(data) is not None) is taken[0]  # what is there already costs nothing


def test_images_in_files_are_streamed():
    data = dataset()
    files = ImageSet(Examples(JoinedPixels((data.examples.pixels,), (300,)), data.examples.labels), data.keys)
    assert Residence(torch.device("meta")).take(files) is None


def test_training_and_validation_share_their_images(compose):
    from tutelage.config import factory

    data = factory.data(factory.stage_config(compose(), "student"))
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")), overfit_batches=0)
    loader = data.val_dataloader()
    resident_train = data.train_dataloader().residence.take(data.splits["train"])
    assert loader.residence.take(loader.dataset).examples.pixels.images is resident_train.examples.pixels.images
    data.teardown("fit")
    assert data.val_dataloader().residence is not loader.residence


def test_a_cpu_has_no_second_copy(compose):
    from tutelage.config import factory

    data = factory.data(factory.stage_config(compose(), "student"))
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")), overfit_batches=0)
    assert data.train_dataloader().residence is None
    stack = StackedData(data, [1, 2])
    stack.trainer = data.trainer
    assert stack.train_dataloader().residence is None
