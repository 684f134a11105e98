"""The set that is trained on, where it is not the whole training set."""

import hashlib
from collections import Counter
from dataclasses import dataclass

import pytest
import torch

from tutelage.data.augment import Shift
from tutelage.data.base import ImageData
from tutelage.data.examples import Examples, joined
from tutelage.data.pixels import JoinedPixels, MemoryPixels
from tutelage.data.transfer import focused, stratified, thinned
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

TRUTH = torch.tensor([0, 0, 0, 1, 1, 2]).repeat(20)  # 60 of class 0, 40 of 1, 20 of 2


def pictures(count, first=0, dtype=torch.uint8):
    """Every pixel says which example it is."""
    images = (torch.arange(count) + first)[:, None, None, None].expand(count, 1, 3, 3)
    return MemoryPixels(images.to(torch.uint8) if dtype == torch.uint8 else images / 255)


@dataclass
class More:
    """Images without labels; ``file`` keeps them from being joined in memory."""

    count: int = 10
    first: int = 200
    dtype: torch.dtype = torch.uint8
    file: bool = False

    def load(self, shape):
        assert shape == (1, 3, 3)
        pixels = pictures(self.count, self.first, self.dtype)
        pixels = JoinedPixels((pixels,), (self.count,)) if self.file else pixels
        return Examples(pixels, torch.full((self.count,), NO_LABEL))


class Toy(ImageData):
    def __init__(self, **common):
        defaults = {"num_classes": 3, "input_shape": (1, 3, 3), "batch_size": 8, "val_size": 20, "seed": 1}
        super().__init__(**(defaults | {"mean": [0.0], "std": [1.0]} | common))

    def load(self):
        return Examples(pictures(120), TRUTH), Examples(pictures(12), TRUTH[:12])


def epoch(loader, number=0):
    loader.sampler.set_epoch(number)
    found = list(loader)
    return {name: torch.cat([batch[name] for batch in found]) for name in found[0]}


def state(data):
    """All that a run may see of the data."""
    batches = [epoch(data.train_dataloader(), number) for number in (0, 1)]
    batches += [epoch(loader) for loader in (data.val_dataloader(), data.whole("test"), data.whole("train"))]
    return torch.cat([x.flatten().double() for batch in batches for x in batch.values()])


# -- what is drawn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "counts"),
    [
        (60, (30, 20, 10)),
        (0.5, (30, 20, 10)),
        (1, (1, 0, 0)),
        (5, (2, 2, 1)),  # 2.5, 1.67 and 0.83: two are missing
        (7, (4, 2, 1)),  # 3.5, 2.33, 1.17: one is missing
        (120, (60, 40, 20)),
    ],
)
def test_every_class_has_labels_in_proportion(size, counts):
    kept = stratified(TRUTH, size, 0)
    assert tuple(TRUTH[kept].bincount(minlength=3).tolist()) == counts
    assert kept.tolist() == sorted(set(kept.tolist()))


def test_the_draw_is_a_function_of_the_seed_and_fair():
    assert torch.equal(stratified(TRUTH, 12, 3), stratified(TRUTH, 12, 3))
    times = torch.zeros(120)
    for seed in range(400):
        times[stratified(TRUTH, 12, seed)] += 1
    assert (times / 400 - 0.1).abs().max() < 0.06  # four standard deviations


def test_more_labels_contain_fewer():
    assert set(stratified(TRUTH, 12, 0).tolist()) < set(stratified(TRUTH, 60, 0).tolist())


@pytest.mark.parametrize("size", [0.001, 1.5, 101, float("nan"), 0, -1, True, "10"])
def test_numbers_of_labels_that_do_not_fit(size):
    with pytest.raises(TutelageError, match=r"data\.labelled"):
        Toy(labelled=size).setup()


# -- what is trained on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [None, [Shift(1)]])
def test_labels_that_stay_are_the_true_ones_and_validation_and_test_keep_theirs(augment):
    whole, few = Toy(augment=augment), Toy(augment=augment, labelled=10)
    batch = epoch(few.train_dataloader())
    known = batch["label"] >= 0
    assert set(batch["label"][~known].tolist()) == {NO_LABEL}
    assert torch.equal(batch["label"][known], TRUTH[batch["key"][known]])
    assert torch.equal(batch["input"], epoch(whole.train_dataloader())["input"])
    assert int((few.splits["train"].labels >= 0).sum()) == int((few.whole("train").dataset.labels >= 0).sum()) == 10
    for part in ("val", "test"):
        given, expected = epoch(few.whole(part)), epoch(whole.whole(part))
        assert all(torch.equal(given[name], expected[name]) for name in expected)
    assert Toy(labelled=10, seed=9).splits["train"].labels.tolist() == few.splits["train"].labels.tolist()
    assert Toy(labelled=10, split_seed=9).splits["train"].labels.tolist() != few.splits["train"].labels.tolist()


def test_some_classes_alone():
    data = Toy(classes=[2, 0])
    keys = data.splits["train"].keys
    assert keys.tolist() == [key for key in Toy().splits["train"].keys.tolist() if TRUTH[key] != 1]
    assert set(data.splits["train"].labels.tolist()) == {0, 2}
    assert set(data.splits["val"].labels.tolist()) == set(data.splits["test"].labels.tolist()) == {0, 1, 2}
    assert data.absent == [1]
    assert Toy(classes=[2], labelled=2).absent == [0, 1]
    assert Toy(labelled=1).absent == Toy().absent == []  # hidden labels count


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("augment", [None, [Shift(1)]])
def test_images_without_labels_follow_with_keys_of_their_own(augment, dtype, file):
    data = Toy(unlabelled=[More(10, 200, dtype, file), More(5, 240)], augment=augment, drop_last=False)
    assert data.is_streaming == file
    batch = epoch(data.train_dataloader())
    assert sorted(batch["key"].tolist()) == [*Toy().splits["train"].keys.tolist(), *range(120, 135)]
    added = batch["key"] >= 120
    assert (batch["label"][added] == NO_LABEL).all()
    assert torch.equal(batch["label"][~added], TRUTH[batch["key"][~added]])
    pixel = torch.cat([torch.arange(120), torch.arange(200, 210), torch.arange(240, 245)])
    torch.testing.assert_close(batch["input"][:, 0, 1, 1], pixel[batch["key"]] / 255)  # a shift by 1 may blacken edges
    assert data.splits["val"].keys.tolist() == Toy().splits["val"].keys.tolist()
    torch.testing.assert_close(epoch(data.val_dataloader())["input"], epoch(Toy().val_dataloader())["input"])
    assert data.absent == []


def test_joined_pixels_keep_the_order_asked_for():
    parts = [More(4, 10, file=True).load((1, 3, 3)), More(3, 50).load((1, 3, 3)), More(2, 90).load((1, 3, 3))]
    rows = torch.tensor([8, 0, 4, 3, 6, 5, 4])
    found = joined(parts).pixels[rows][:, 0, 0, 0] * 255
    assert found.round().int().tolist() == [91, 10, 50, 13, 52, 51, 50]


@pytest.mark.parametrize("workers", [0, 2])
def test_labelled_examples_come_several_times_an_epoch(workers):
    data = Toy(labelled=10, repeat_labelled=5, drop_last=False, num_workers=workers)
    loader = data.train_dataloader()
    views = [epoch(loader, number) for number in (0, 1)]
    for batch in views:
        times = Counter(batch["key"].tolist())
        labels = dict(zip(batch["key"].tolist(), batch["label"].tolist(), strict=True))
        assert times == {key: 5 if labels[key] >= 0 else 1 for key in data.splits["train"].keys.tolist()}
    assert views[0]["key"].tolist() != views[1]["key"].tolist()
    assert len(data.splits["train"]) == len(data.whole("train").dataset) == 100  # as a set, once
    assert sum(len(batch["key"]) for batch in data.unaugmented_train_loader(0)) == 140
    loader.load_state_dict({"epoch": 1, "batch": 7})
    assert epoch(loader, 1)["key"].tolist() == views[1]["key"].tolist()[7 * 8 :]


@pytest.mark.parametrize("augment", [None, [Shift(1)]])
def test_half_of_an_epoch_is_of_the_focus(augment):
    data = Toy(focus=[2], drop_last=False, augment=augment)
    whole = data.splits["train"]
    special = set(whole.keys[whole.labels == 2].tolist())
    epochs = [epoch(data.train_dataloader(), number) for number in (0, 1)]
    for batch in epochs:
        keys = batch["key"].tolist()
        assert len(keys) == len(set(keys)) == 2 * len(special)  # as many others, none twice
        assert special < set(keys)
        assert torch.equal(batch["label"], TRUTH[batch["key"]])
    assert set(epochs[0]["key"].tolist()) == set(epochs[1]["key"].tolist())
    assert epochs[0]["key"].tolist() != epochs[1]["key"].tolist()
    assert torch.equal(whole.keys, Toy().splits["train"].keys)  # as a set, all of them once
    assert set(data.splits["val"].labels.tolist()) == {0, 1, 2}
    same, other = Toy(focus=[2], seed=9), Toy(focus=[2], split_seed=9)
    assert same.fingerprint() == Toy(focus=[2]).fingerprint() != other.fingerprint()


def test_others_come_again_where_there_are_too_few():
    data = Toy(focus=[0, 1], drop_last=False)
    times = Counter(epoch(data.train_dataloader())["key"].tolist())
    assert (
        sum(times.values()) == len(data.unaugmented_train_loader(0).dataset) == 2 * sum(TRUTH[key] < 2 for key in times)
    )
    others = [count for key, count in times.items() if TRUTH[key] == 2]
    assert len(others) == int((data.splits["train"].labels == 2).sum())
    assert max(others) - min(others) <= 1
    assert {count for key, count in times.items() if TRUTH[key] < 2} == {1}


def test_others_are_drawn_fairly():
    labels, times = torch.tensor([1] * 10 + [0] * 40), torch.zeros(50)
    for seed in range(400):
        drawn = focused(labels, [1], seed)
        assert torch.equal(drawn, focused(labels, [1], seed))
        times[drawn] += 1
    assert (times[:10] == 400).all()
    assert (times[10:] / 400 - 0.25).abs().max() < 0.09  # four standard deviations


def test_a_focus_and_repeated_labels_go_together():
    data = Toy(focus=[2], labelled=50, repeat_labelled=3, drop_last=False)
    labels = epoch(data.train_dataloader())["label"]
    assert (labels == 2).sum() == 3 * (data.splits["train"].labels == 2).sum()


@pytest.mark.parametrize(("choice", "said"), [({"classes": [0, 1]}, "0 training .* and 100"), ({}, "100 .* and 0")])
def test_a_focus_needs_both_halves(choice, said):
    class Two(Toy):
        def load(self):
            few = TRUTH.clamp(max=1)
            return Examples(pictures(120), few), Examples(pictures(12), few[:12])

    with pytest.raises(TutelageError, match=rf"data\.focus=\[.*\]: {said} of others; both are needed"):
        Two(focus=[2] if choice else [0, 1], **choice).setup()


def test_repeats_count_where_a_batch_must_be_full():
    with pytest.raises(TutelageError, match="100 training examples don't fill one batch of 140"):
        Toy(labelled=10, batch_size=140).setup()
    assert len(Toy(labelled=10, batch_size=140, repeat_labelled=5).train_dataloader()) == 1


def test_a_sample_has_rows_of_both_kinds():
    sample = Toy(labelled=10).sample(8)
    assert (sample["label"] >= 0).tolist() == [True] * 4 + [False] * 4
    assert (Toy(labelled=1).sample(8)["label"] >= 0).tolist() == [True] + [False] * 4
    assert (Toy(labelled=10).sample(1)["label"] >= 0).tolist() == [True]


def test_without_a_choice_nothing_changes():
    chosen = {"labelled": None, "classes": None, "unlabelled": None, "repeat_labelled": 1, "focus": None}
    assert torch.equal(state(Toy(**chosen, augment=[Shift(1)])), state(Toy(augment=[Shift(1)])))
    assert Toy(**chosen).fingerprint() == Toy().fingerprint()
    pool, test = Toy().load()
    assert Toy().fingerprint() == hashlib.sha256(pool.fingerprint() + test.fingerprint()).hexdigest()


def test_the_fingerprint_follows_what_is_trained_on():
    choices = [
        {},
        {"labelled": 10},
        {"labelled": 11},
        {"labelled": 10, "split_seed": 1},
        {"labelled": 10, "repeat_labelled": 2},
        {"classes": [0, 1]},
        {"classes": [0, 2]},
        {"unlabelled": [More()]},
        {"unlabelled": [More(first=201)]},
        {"unlabelled": [More(file=True)]},
        {"unlabelled": [More(first=201, file=True)]},
        {"unlabelled": [More(5), More(5, 205)], "repeat_labelled": 2},
        {"focus": [2]},
        {"focus": [1]},
    ]
    assert len({Toy(**choice).fingerprint() for choice in choices}) == len(choices)
    assert Toy(labelled=10, seed=5, augment=[Shift(1)]).fingerprint() == Toy(labelled=10).fingerprint()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": []}, r"data\.classes must be some of 0 to 2, each once; found \[\]"),
        ({"classes": [0, 3]}, r"found \[0, 3\]"),
        ({"classes": [1, 1]}, r"found \[1, 1\]"),
        ({"focus": [3]}, r"data\.focus must be some of 0 to 2, each once; found \[3\]"),
        ({"repeat_labelled": 0}, r"data\.repeat_labelled must be .* at least 1; found 0"),
        ({"repeat_labelled": 1.5}, "found 1.5"),
        ({"unlabelled": [torch.nn.Identity()]}, r"data\.unlabelled: Identity is no source"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(TutelageError, match=message):
        Toy(**arguments)


def test_what_learns_before_the_student_sees_augmented_images_of_every_epoch():
    """As the published paraphrasers do; the same on every rank, for they are a function of seed, epoch and key."""
    data, plain = Toy(drop_last=False, augment=[Shift(1)]), Toy(drop_last=False)

    def pictures(of: Toy, number: int) -> torch.Tensor:
        batches = list(of.unaugmented_train_loader(number))
        order = torch.cat([batch["key"] for batch in batches]).argsort()
        return torch.cat([batch["input"] for batch in batches])[order]

    assert not torch.equal(pictures(data, 0), pictures(plain, 0))
    assert not torch.equal(pictures(data, 0), pictures(data, 1))
    assert torch.equal(pictures(data, 1), pictures(data, 1))
    assert torch.equal(pictures(plain, 0), pictures(plain, 1))


def test_a_long_tail_keeps_less_of_each_later_class():
    """Of 40, 33 and 17 or so training examples of three classes all, a third of the power one half, and a ninth."""
    whole, tail = Toy(), Toy(long_tail=1 / 9)
    counts, kept = (data._loaded.train.labels.bincount() for data in (whole, tail))
    assert kept.tolist() == [counts[0], round(int(counts[1]) / 3), round(int(counts[2]) / 9)]
    for part in ("val", "test"):
        assert torch.equal(whole.splits[part].labels, tail.splits[part].labels)
    keys = whole._loaded.train.keys
    assert torch.isin(tail._loaded.train.keys, keys).all()
    assert torch.equal(Toy(long_tail=1 / 9, seed=2)._loaded.train.keys, tail._loaded.train.keys)
    assert tail.fingerprint() != whole.fingerprint()
    assert not tail.transfer.is_whole
    assert Toy(long_tail=1.0)._loaded.train.labels.bincount().tolist() == counts.tolist()


def test_a_long_tail_is_another_with_another_seed_and_empties_no_class():
    labels = torch.arange(300) % 3
    first, other = (thinned(labels, 3, 0.001, seed) for seed in (0, 1))
    assert labels[first].bincount().tolist() == [100, 3, 1]
    assert not torch.equal(first, other)
    assert thinned(labels[labels != 1], 3, 0.5, 0).numel() == 150


@pytest.mark.parametrize("value", [0, -0.1, 1.5])
def test_a_long_tail_out_of_range_is_refused(value):
    with pytest.raises(TutelageError, match=r"data.long_tail must be above 0 and at most 1"):
        Toy(long_tail=value)


def test_a_long_tail_needs_classes():
    class Numbers(Toy):
        def load(self):
            return (Examples(pictures(120), torch.rand(120, 1)),) * 2

    with pytest.raises(TutelageError, match=r"data.long_tail needs labels that are one class an example"):
        Numbers(num_classes=None, num_outputs=1, long_tail=0.5).setup()
