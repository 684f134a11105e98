"""Samplers: which examples an epoch has is a function of (seed, epoch), on any number of ranks."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from timm.data.distributed_sampler import RepeatAugSampler

from tutelage import seeding
from tutelage.data.order import EpochOrder
from tutelage.data.samplers import ByLength, ClassBalanced, Repeated, Weighted
from tutelage.errors import TutelageError


@dataclass
class Train:
    labels: torch.Tensor
    keys: torch.Tensor
    examples: object = field(default_factory=object)

    def __len__(self):
        return len(self.keys)

    def lengths(self, name):
        assert name == "input"
        return torch.arange(1000) % 17


def train(labels):
    return Train(torch.tensor(labels), torch.arange(len(labels)))


def draw(sampler, data, epoch=0, seed=0, batch_size=8):
    return sampler(data, batch_size, seeding.generator(seed, "order", epoch))


def test_classes_come_equally_often():
    data = train([0] * 900 + [1] * 90 + [-100] * 10)
    drawn = data.labels[draw(ClassBalanced(30_000), data)]
    for label in (0, 1, -100):
        assert (drawn == label).double().mean() == pytest.approx(1 / 3, abs=0.015)


def test_the_square_root_lies_between():
    data = train([0] * 900 + [1] * 100)
    drawn = data.labels[draw(ClassBalanced(30_000, power=0.5), data)]
    assert (drawn == 1).double().mean() == pytest.approx(0.25, abs=0.015)  # √900 : √100 = 3 : 1


@pytest.mark.parametrize("replacement", [True, False])
def test_examples_come_as_often_as_their_weights_say(tmp_path, replacement):
    weights = np.arange(200.0) % 4
    np.save(tmp_path / "w.npy", weights)
    data = train([0] * 200)
    of_list, of_file = (
        draw(Weighted(given, count=50, replacement=replacement), data) for given in (weights, tmp_path / "w.npy")
    )
    assert torch.equal(of_list, of_file)
    assert (torch.from_numpy(weights)[of_list] > 0).all()
    assert (len(of_list.unique()) == 50) is not replacement
    shares = [torch.from_numpy(weights)[draw(Weighted(weights, 50, replacement), data, e)] for e in range(200)]
    counts = torch.cat(shares).long().bincount().double()
    assert counts[3] > 1.2 * counts[2] > 1.2 * 1.2 * counts[1]


def test_a_weight_is_of_its_key():
    data = Train(torch.zeros(2, dtype=torch.long), torch.tensor([5, 9]))
    assert draw(Weighted([0.0] * 9 + [1.0]), data).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Weighted([1.0, 2.0]), r"expected one for each training example, \[4\] or more; found \[2\]"),
        (lambda: Weighted([0.0] * 4), "at least 0, not all 0"),
        (lambda: Weighted([1.0, -1.0, 1.0, 1.0]), "at least 0"),
        (lambda: Weighted([1.0, 0, 0, 0], count=2, replacement=False), "1 examples have a weight"),
        (lambda: Weighted("none.npy"), "there is no file none.npy"),
        (lambda: ClassBalanced(0), "count must be at least 1"),
        (lambda: ByLength(window=0), "window must be at least 1"),
    ],
)
def test_bad_arguments(make, said):
    with pytest.raises(TutelageError, match=said):
        draw(make(), train([0] * 4))


def test_batches_have_similar_lengths_and_every_example_comes_once():
    data, sampler = train([0] * 1000), ByLength(window=16)
    lengths = data.lengths("input")
    order = draw(sampler, data)
    assert order.sort().values.tolist() == list(range(1000))
    spread = [int(lengths[batch].max() - lengths[batch].min()) for batch in order.split(8)]
    assert sum(spread) / len(spread) < 3
    batches = [int(lengths[batch].sum()) for batch in order.split(8)][:16]
    assert batches != sorted(batches)
    assert not torch.equal(order, draw(sampler, data, epoch=1))


def test_an_epoch_may_have_the_labelled_examples_alone():
    data, sampler = train([0, -100] * 50), ByLength(window=2, labelled_only=True)
    assert sampler.size(data) == 50
    assert draw(sampler, data).sort().values.tolist() == list(range(0, 100, 2))


def test_lengths_need_data_that_say_them():
    with pytest.raises(TutelageError, match="examples of different lengths"):
        draw(ByLength(), type("Plain", (), {"examples": 1, "keys": torch.arange(3), "__len__": lambda self: 3})())


def flat(lists):
    return [one for part in lists for one in part]


def test_an_epoch_is_a_function_of_seed_and_epoch_on_any_number_of_ranks():
    data = train([0] * 90 + [1] * 10)

    def epochs(seed, rank=0, ranks=1):
        sampler = ClassBalanced(96)
        order = EpochOrder(
            sampler.size(data), 8, seed, shuffle=True, drop_last=True, rank=rank, world_size=ranks,
            draw=lambda chance: sampler(data, 8, chance),
        )  # fmt: skip
        found = []
        for epoch in (0, 1):
            order.set_epoch(epoch)
            found.append([indices for _, indices in order])
        return found

    one, again, other = epochs(0), epochs(0), epochs(1)
    assert all(map(torch.equal, flat(one), flat(again)))
    assert not torch.equal(one[0][0], other[0][0])
    assert not torch.equal(one[0][0], one[1][0])
    halves = [flat(epochs(0, rank, 2)) for rank in (0, 1)]
    assert all(torch.equal(batch, torch.cat(parts)) for batch, *parts in zip(flat(one), *halves, strict=True))


def test_an_epoch_of_another_size_is_refused():
    order = EpochOrder(4, 2, 0, shuffle=True, drop_last=True, draw=lambda chance: torch.arange(3))
    with pytest.raises(TutelageError, match="epoch 0 has 3 examples; the first had 4"):
        list(order)


@pytest.mark.parametrize(
    ("count", "draws", "distinct"), [(3072, 3072, 1024), (1000, 768, 256), (100, 100, 34), (1281, 1280, 427)]
)
def test_repeats_have_timms_numbers(count, draws, distinct):
    """Of 3,072 examples 1,024 come three times, next to each other; of 1,000 an epoch has 768."""
    data, sampler = train([0] * count), Repeated(3)
    order = draw(sampler, data)
    assert len(order) == sampler.size(data) == draws
    example, view = order % count, order // count
    _, times = example.unique_consecutive(return_counts=True)
    assert len(times) == len(example.unique()) == distinct
    assert (times[:-1] == 3).all()
    assert torch.equal(view, torch.arange(draws) % 3)
    theirs = torch.tensor(list(RepeatAugSampler(range(count), num_replicas=1, rank=0)))
    assert len(theirs) == draws
    assert torch.equal(theirs.unique_consecutive(return_counts=True)[1], times)


def test_repeats_are_drawn_anew_in_each_epoch_and_shared_by_ranks():
    data, sampler = train([0] * 1000), Repeated(4, round=8)
    first, second, other = (draw(sampler, data, epoch, seed) for epoch, seed in ((0, 0), (1, 0), (0, 1)))
    assert torch.equal(first, draw(sampler, data))
    assert len({*(first % 1000).tolist()} & {*(second % 1000).tolist()}) < 120  # of 250, were it by chance 62
    assert not torch.equal(first, other)


@pytest.mark.parametrize("given", [{"times": 0}, {"times": 2.5}, {"round": 0}])
def test_bad_repeats(given):
    with pytest.raises(TutelageError, match="whole number of at least 1; found"):
        Repeated(**given)
