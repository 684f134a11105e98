import copy
import math
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from tutelage import seeding
from tutelage.data.order import EpochLoader, EpochOrder
from tutelage.errors import TutelageError


class Echo(Dataset):
    """Gives each request back, so that a test sees what the dataset was asked for."""

    def __init__(self, fail_at: int | None = None):
        self.fail_at = fail_at

    def __getitem__(self, request):
        epoch, indices = request
        if self.fail_at is not None and self.fail_at in indices:
            raise TutelageError(f"/data/cat.png: found TutelageErrors\nat index {self.fail_at}")
        return {"epoch": torch.tensor(epoch), "key": indices}


def training(size=100, batch_size=12, seed=3, drop_last=True, **ranks):
    return EpochOrder(size, batch_size, seed, shuffle=True, drop_last=drop_last, **ranks)


def evaluation(size, batch_size, **ranks):
    return EpochOrder(size, batch_size, 3, shuffle=False, drop_last=False, **ranks)


def batches(order, epoch):
    order.set_epoch(epoch)
    found = list(order)
    assert all(e == epoch for e, _ in found)
    return [indices.tolist() for _, indices in found]


def flat(lists):
    return list(chain.from_iterable(lists))


def keys(loader):
    return [batch["key"].tolist() for batch in loader]


def test_the_order_is_the_documented_permutation():
    expected = torch.randperm(100, generator=seeding.generator(3, "order", 5)).tolist()
    assert flat(batches(training(drop_last=False), 5)) == expected
    assert flat(batches(training(), 5)) == expected[:96]


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    order = training()
    first = [batches(order, epoch) for epoch in (4, 0, 4)]
    torch.rand(5)
    assert first[0] == first[2] == batches(training(), 4)
    assert first[0] != first[1]
    assert first[0] != batches(training(seed=4), 4)


@pytest.mark.parametrize(("drop_last", "lengths"), [(True, [12] * 8), (False, [12] * 8 + [4])])
def test_drop_last(drop_last, lengths):
    order = training(drop_last=drop_last)
    assert [len(batch) for batch in batches(order, 0)] == lengths
    assert len(order) == len(lengths)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("world_size", "size"), [(2, 100), (3, 102), (4, 104)])
def test_ranks_share_the_batch_that_one_process_would_have(world_size, size, drop_last):
    def share(**ranks):
        return batches(training(size, drop_last=drop_last, **ranks), 7)

    steps = list(zip(*(share(rank=rank, world_size=world_size) for rank in range(world_size)), strict=True))
    assert [flat(parts) for parts in steps] == share()
    assert all(len({len(part) for part in parts}) == 1 for parts in steps)


@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 5))
def test_evaluation_sees_every_example_once_and_no_rank_is_without_work(size, batch_size, world_size):
    if size < world_size:
        with pytest.raises(TutelageError, match=f"{size} examples .* {world_size} ranks"):
            evaluation(size, batch_size, world_size=world_size)
        return
    orders = [evaluation(size, batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    shares = [batches(order, 0) for order in orders]
    assert len({len(share) for share in shares}) == 1
    assert {len(order) for order in orders} == {len(shares[0])}
    assert all(batch for share in shares for batch in share)
    assert flat(batch for step in zip(*shares, strict=True) for batch in step) == list(range(size))
    if world_size == 1:
        assert len(shares[0]) == math.ceil(size / batch_size)
        assert max(map(len, shares[0])) <= batch_size


def test_ranks_that_would_have_unequal_shares_are_refused():
    with pytest.raises(TutelageError, match=r"multiple of the 5 ranks.*found 12"):
        training(world_size=5)
    with pytest.raises(TutelageError, match=r"last batch of 5 .* 2 ranks"):
        training(size=101, drop_last=False, world_size=2)
    training(size=101, drop_last=False)


@pytest.mark.parametrize("batch", [0, 1, 5, 8])
def test_a_resumed_epoch_is_the_rest_of_it_and_only_once(batch):
    order = training()
    whole, following = batches(order, 2), batches(order, 3)
    order = training()
    order.resume(2, batch)
    assert len(order) == 8
    assert [(epoch, indices.tolist()) for epoch, indices in order] == [(2, indices) for indices in whole[batch:]]
    assert batches(order, 2) == whole
    assert batches(order, 3) == following


def test_a_resumption_does_not_reach_into_another_epoch():
    order = training()
    order.resume(2, 5)
    assert len(batches(order, 3)) == 8
    assert len(batches(order, 2)) == 8


@pytest.mark.parametrize("workers", [0, 2])
class TestLoader:
    def test_yields_the_order_of_each_epoch(self, workers):
        loader = EpochLoader(Echo(), training(), workers)
        for epoch in (0, 1, 4):
            loader.sampler.set_epoch(epoch)
            found = list(loader)
            assert [int(batch["epoch"]) for batch in found] == [epoch] * 8
            assert [batch["key"].tolist() for batch in found] == batches(training(), epoch)
        assert len(loader) == 8

    def test_resumes_within_an_epoch(self, workers):
        saved = EpochLoader(Echo(), training(), workers, position=lambda: (2, 3)).state_dict()
        assert saved == {"epoch": 2, "batch": 3}
        loader = EpochLoader(Echo(), training(), workers)
        loader.load_state_dict(copy.deepcopy(saved))
        running = iter(loader)  # Lightning does it in this order
        loader.sampler.set_epoch(2)
        found = [next(running)["key"].tolist()]
        loader.sampler.set_epoch(2)
        found += [batch["key"].tolist() for batch in running]
        assert found == batches(training(), 2)[3:]
        assert len(loader) == 8
        assert keys(loader) == batches(training(), 2)

    def test_the_epoch_counts_that_is_set_at_the_first_batch(self, workers):
        loader = EpochLoader(Echo(), training(), workers)
        running = iter(loader)
        loader.sampler.set_epoch(6)
        found = [next(running)["key"].tolist()]
        loader.sampler.set_epoch(7)
        assert found + [batch["key"].tolist() for batch in running] == batches(training(), 6)

    def test_an_abandoned_epoch_leaves_nothing_behind(self, workers):
        loader = EpochLoader(Echo(), training(), workers)
        for _ in zip(range(2), loader, strict=False):
            pass
        loader.sampler.set_epoch(1)
        assert keys(loader) == batches(training(), 1)

    def test_leaves_the_global_random_state_alone(self, workers):
        before = torch.get_rng_state()
        list(EpochLoader(Echo(), training(), workers))
        assert torch.equal(torch.get_rng_state(), before)

    def test_an_error_arrives_as_it_was_raised(self, workers):
        loader = EpochLoader(Echo(fail_at=17), training(drop_last=False), workers)
        with pytest.raises(TutelageError, match=r"^/data/cat.png: found TutelageErrors\nat index 17$"):
            list(loader)


def test_a_state_that_does_not_fit_is_refused():
    with pytest.raises(TutelageError, match="after batch 9 of epoch 2: an epoch of this data has 8"):
        EpochLoader(Echo(), training()).load_state_dict({"epoch": 2, "batch": 9})


def test_a_loader_without_position_has_no_state():
    with pytest.raises(TutelageError, match="position"):
        EpochLoader(Echo(), training()).state_dict()
