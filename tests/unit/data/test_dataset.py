"""data=dataset: anyone's datasets under our keys, order and chance."""

import random

import numpy as np
import own_data
import pytest
import torch
from own_data import Dicts, Lengths, Listed, Noisy, Objects, Own, Pictures
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from torchvision.transforms import v2

from tutelage.data.dataset import DatasetData
from tutelage.data.samplers import ByLength
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

FIELDS = {"input": "image", "label": "fine_label"}


def data(train=None, **arguments):
    common = {"test": Pictures("test"), "val_size": 100, "batch_size": 16, "seed": 0}
    return DatasetData(train=Pictures() if train is None else train, **(common | arguments))


def batch(split, *rows, epoch=0):
    return split[epoch, torch.tensor(rows)]


def epoch(made, number=0):
    loader = made.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def same(one, other):
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


# -- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Pictures, None),
        (Pictures, {"input": 0, "label": 1}),
        (Dicts, {"input": "image", "label": "fine_label"}),
        (Dicts, None),
        (Objects, None),
        (own_data.tensors, None),
    ],
)
def test_tuples_dicts_and_dataclasses_are_the_same_batch(kind, fields):
    images, labels = own_data.digits("train")
    made = data(kind(), test=kind("test"), fields=fields)
    found = batch(made.splits["train"], 0, 5)
    assert found["input"].dtype == torch.float32
    assert torch.equal(found["input"], torch.from_numpy(images[found["key"]])[:, None].float() / 255)
    assert found["label"].tolist() == labels[found["key"]].tolist()
    assert made.input_shape == (1, 8, 8)
    assert made.num_classes == 10


def test_further_fields_travel():
    named = data(Dicts(), test=Dicts("test"), fields={**FIELDS, "darkness": "ink"})
    assert batch(named.splits["train"], 0, 1)["darkness"].shape == (2,)
    usual = batch(data(Dicts(), test=Dicts("test")).splits["val"], 0)
    assert set(usual) == {"input", "label", "key", "ink"}  # not the file's name


def test_number_and_names_of_the_classes_are_the_dataset_s():
    assert data().class_names[:3] == ["zero", "one", "two"]
    assert data().known_names == {"class_names": list(Pictures.classes)}
    assert data(own_data.tensors(), test=own_data.tensors("test")).num_classes == 10
    assert data(class_names=list("abcdefghij")).class_names[0] == "a"
    assert data(Subset(Pictures(), range(300)), val_size=50).class_names[0] == "zero"


def test_names_of_the_inputs_are_the_dataset_s_where_there_are_as_many():
    names = ["age", "weight"]
    for shape, known in (((2,), {"input_names": names}), ((3,), {}), ((1, 2), {})):
        table = TensorDataset(torch.rand(20, *shape), torch.arange(20) % 2)
        table.feature_names = names
        made = data(Subset(table, range(20)), test=table, val_size=5, batch_size=5)
        made.setup()
        assert made.known_names == known


def test_labels_come_from_a_column_only_where_samples_agree():
    class Shifted(Pictures):
        reads = 0

        def __getitem__(self, row):
            Shifted.reads += 1
            image, label = super().__getitem__(row)
            return image, (label + 1) % 10

    made = data(Shifted(), test=Shifted("test"))
    assert made._labels["train"][0] == (own_data.digits("train")[1][0] + 1) % 10
    assert Shifted.reads > 600
    Pictures.reads = 0
    both = ConcatDataset([Pictures("train"), Subset(Pictures("val"), [3, 1])])
    assert data(both)._labels["train"][-2:].tolist() == own_data.digits("val")[1][[3, 1]].tolist()


def test_a_loader_gives_its_dataset_and_its_collate():
    loader = DataLoader(Lengths(), batch_size=7, collate_fn=own_data.padded)
    made = data(loader, test=Lengths(20), val_size=20)
    found = batch(made.splits["train"], 0, 1, 2)
    assert found["mask"].dtype == torch.bool
    assert found["input"].shape == (3, found["mask"].sum(1).max(), 3)
    assert found["label"].tolist() == (found["key"] % 2).tolist()


def test_a_function_makes_the_set():
    assert len(data(Pictures, test=lambda: Pictures("test")).splits["test"]) == 297


def test_val_and_test_may_be_given_or_drawn():
    given = data(val=Pictures("val"))
    assert {part: len(given.splits[part]) for part in given.splits} == {"train": 600, "val": 300, "test": 297}
    assert given.splits["val"].keys.tolist() == list(range(600, 900))
    drawn = data(test=None, test_size=0.25)
    assert {part: len(drawn.splits[part]) for part in drawn.splits} == {"train": 350, "val": 100, "test": 150}
    other = data(test=None, test_size=0.25, seed=5)
    same([batch(drawn.splits["test"], 0, 1)], [batch(other.splits["test"], 0, 1)])


def test_normalised_by_mean_and_std():
    plain, moved = data(), data(mean=[0.5], std=[0.25])
    wanted = (batch(plain.splits["val"], 0)["input"] - 0.5) / 0.25
    assert torch.equal(batch(moved.splits["val"], 0)["input"], wanted)
    assert torch.allclose(moved.pictures(wanted), batch(plain.splits["val"], 0)["input"])


# -- order and chance -------------------------------------------------------------------------------------------------

RANDOM = [
    pytest.param(lambda: v2.RandomAffine(30), id="torchvision"),
    pytest.param(lambda: [v2.RandomHorizontalFlip(), v2.RandomCrop(8, padding=2), v2.PILToTensor()], id="a list"),
    pytest.param(lambda: lambda image: image.rotate(random.uniform(-90, 90)), id="python's generator"),
    pytest.param(lambda: lambda image: np.array(image) * np.uint8(np.random.rand() < 0.5), id="numpy's"),  # noqa: NPY002
]


@pytest.mark.parametrize("make", RANDOM)
def test_a_random_transform_is_a_function_of_seed_view_and_key(make):
    made, again, other = (data(train_transform=make(), seed=seed) for seed in (0, 0, 1))
    random.seed(5)
    torch.manual_seed(5)
    first = epoch(made)
    random.random()
    torch.rand(3)
    same(first, epoch(again))
    assert not torch.equal(first[0]["input"], epoch(made, 1)[0]["input"])
    place = [int(one.splits["train"].keys.tolist().index(first[0]["key"][0])) for one in (made, other)]
    one, two = (batch(x.splits["train"], i) for x, i in zip((made, other), place, strict=True))
    assert torch.equal(one["input"][0], first[0]["input"][0])
    some = [batch(x.splits["train"], *range(20))["input"] for x in (made, other)]
    assert not torch.equal(*some)
    assert torch.equal(two["key"], one["key"])
    assert first[0]["view"].tolist() == [0] * 16


def test_global_generators_are_left_as_they_were():
    made = data(train_transform=v2.RandomAffine(30))
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    epoch(made)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize("make", RANDOM[:1] + RANDOM[2:])
def test_no_worker_and_two_make_the_same_bits(make):
    same(epoch(data(train_transform=make())), epoch(data(train_transform=make(), num_workers=2)))


@pytest.mark.parametrize("of", ["torch", "numpy", "python"])
def test_a_dataset_that_draws_by_itself_draws_a_function_of_seed_view_and_key(of):
    made, again = data(Noisy(of=of)), data(Noisy(of=of))
    assert made.augment is None or made.augment.views is None
    made.setup()
    assert made.augment is not None  # caches must know
    same(epoch(made), epoch(again))
    assert not torch.equal(epoch(made)[0]["input"], epoch(made, 1)[0]["input"])
    same([batch(made.splits["val"], 0)], [batch(made.splits["val"], 0, epoch=3)])
    assert made.fingerprint() == again.fingerprint()


def test_one_that_nobody_can_seed_is_told_of_and_goes_on(caplog):
    made = data(Own())
    made.setup()
    assert len([line for line in caplog.messages if "can't be resumed to the bit" in line]) == 1
    assert made.fingerprint() == data(Own()).fingerprint()
    assert len(epoch(made)) == 500 // 16


def test_views_come_again_and_repeats_differ():
    made = data(train_transform=v2.RandomAffine(30), views=3, repeat=2)
    per_epoch = made.per_epoch(made.splits["train"])
    assert len(per_epoch) == 1000
    pictures = [batch(per_epoch, 0, 500, epoch=e) for e in range(4)]
    assert [found["view"].tolist() for found in pictures] == [[0, 1], [2, 0], [1, 2], [0, 1]]
    assert pictures[0]["key"][0] == pictures[0]["key"][1]
    assert not torch.equal(pictures[0]["input"][0], pictures[0]["input"][1])
    assert torch.equal(pictures[0]["input"][0], pictures[1]["input"][1])
    assert len(made.train_dataloader()) == 1000 // 16


def test_albumentations_are_called_by_name_and_have_their_own_generators_set():
    class Drawn:
        """As albumentations': arguments by name, and a generator that it seeds by itself."""

        def __init__(self):
            self.generator = np.random.default_rng()

        def set_random_seed(self, seed):
            self.generator = np.random.default_rng(seed)

        def __call__(self, *args, force_apply=False, **fields):
            assert not args
            assert fields["image"].dtype == np.uint8
            return {"image": np.roll(fields["image"], self.generator.integers(8), axis=1)}

    same(epoch(data(train_transform=Drawn())), epoch(data(train_transform=Drawn())))


@pytest.mark.filterwarnings("ignore")
def test_the_real_albumentations():
    pytest.importorskip("albumentations")
    import albumentations as album

    def make():
        return album.Compose([album.HorizontalFlip(p=0.5), album.Rotate(90, p=1.0)])

    first = epoch(data(train_transform=make()))
    same(first, epoch(data(train_transform=make(), num_workers=2)))
    assert not torch.equal(first[0]["input"], epoch(data(train_transform=make()), 1)[0]["input"])


def test_a_transform_of_several_fields():
    def together(image, ink):
        return image, ink * 2

    def named(*, image, darkness):
        return {"image": image, "darkness": darkness * 2}

    given = {"train": Dicts(), "test": Dicts("test"), "fields": {**FIELDS, "ink": "ink"}}
    plain, listed, by_name = (
        batch(data(**given, **more).splits["val"], 0, 1)
        for more in (
            {},
            {"transform": together, "transform_fields": ["input", "ink"]},
            {"transform": named, "transform_fields": {"image": "input", "darkness": "ink"}},
        )
    )
    for one in (listed, by_name):
        assert torch.equal(one["ink"], 2 * plain["ink"])
        assert torch.equal(one["input"], plain["input"])


def test_a_transform_and_a_collate_of_one_s_own_go_together():
    def collate(samples):
        assert isinstance(samples[0], tuple)
        return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])

    made = data(transform=v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]), collate=collate)
    found, plain = batch(made.splits["val"], 0, 1), batch(data().splits["val"], 0, 1)
    assert torch.allclose(found["input"], plain["input"])
    assert torch.equal(found["label"], plain["label"])


# -- as for data of ours ----------------------------------------------------------------------------------------------


def test_an_epoch_goes_on_where_it_was():
    whole = epoch(data(train_transform=v2.RandomAffine(30)), 3)
    loader = data(train_transform=v2.RandomAffine(30)).train_dataloader()
    loader.load_state_dict({"epoch": 3, "batch": 7})
    same(whole[7:], list(loader))


def test_few_labels_classes_and_further_samples():
    made = data(labelled=50, unlabelled=[Pictures("small"), Listed([Image.new("L", (8, 8))])])
    train = made.splits["train"]
    assert int((train.labels >= 0).sum()) == 50
    assert len(train) == 500 + 49
    assert int(train.keys.max()) == 600 + 48
    last = batch(train, 548)
    assert last["label"].tolist() == [NO_LABEL]
    assert not last["input"].any()
    assert int((made.splits["val"].labels < 0).sum()) == 0
    assert {*data(classes=[1, 2]).splits["train"].labels.tolist()} == {1, 2}
    assert made.fingerprint() != data().fingerprint()


def test_another_seed_shares_the_samples():
    made = data(train_transform=v2.RandomAffine(30))
    same(epoch(made.with_seed(4)), epoch(data(train_transform=v2.RandomAffine(30), seed=4)))


def test_batches_by_length():
    made = data(Lengths(200), test=Lengths(20), val_size=50, collate=own_data.padded, sampler=ByLength(window=4))
    plain = data(Lengths(200), test=Lengths(20), val_size=50, collate=own_data.padded)
    padding = [sum(int((~found["mask"]).sum()) for found in epoch(one)) for one in (made, plain)]
    assert padding[0] < padding[1] / 2


def test_the_fingerprint_is_the_content_s():
    changed = Pictures()
    changed.images = changed.images.copy()
    changed.images[0, 0, 0] ^= 1
    assert data().fingerprint() == data().fingerprint() != data(changed).fingerprint()
    changed.images[0, 0, 0] ^= 1
    changed.images[301, 0, 0] ^= 1
    assert data(check=None).fingerprint() != data(changed, check=None).fingerprint()


# -- bad input --------------------------------------------------------------------------------------------------------


def of(*samples):
    return Listed([*samples] * 30)


X = torch.zeros(1, 8, 8)


@pytest.mark.parametrize(
    ("train", "arguments", "said"),
    [
        (Listed([]), {}, "data.train: the dataset Listed is empty"),
        (5, {}, r"data.train: expected a map-style Dataset, with len\(\) and \[i\], .*; found int"),
        (Dicts(), {"fields": {**FIELDS, "input": "imag"}, "test": None}, "no 'imag', .*'input': did you mean 'image'"),
        (Dicts(), {"fields": {**FIELDS, "label": "label"}}, "no 'label', .* did you mean 'fine_label'"),
        (Pictures(), {"fields": {"input": 0, "label": 2}}, "has no 2, which is to be its field 'label': known: 0, 1"),
        (Pictures(), {"fields": {"label": 1}}, "data.fields needs a field 'input'; found label"),
        (of({"input": X, "label": 0, "key": 3}), {}, "'key' is Tutelage's own field"),
        (of((X, torch.zeros(3, dtype=torch.long))), {}, r"data.test: .*; those of data.train are integers with 1 axis"),
        (of((X, 0.5)), {}, r"data.test: labels are one class an example; those of data.train are \[1\] floats"),
        (of((X, True)), {}, r"data.train: sample 0: its label is True \(bool\); expected a whole number"),
        (of((X, "cat")), {}, r"its label is 'cat' \(str\)"),
        (of((X, 0), (X, 3)), {"num_classes": 3}, r"^data.train: sample 1: its label is 3; expected 0 to 2"),
        (of((X, 0), (X, -5)), {"num_classes": 3}, "data.train: sample 1: its label is -5"),
        (of((X, -5), (X, -7)), {}, "the largest label is -5; expected numbers of classes, from 0 on"),
        (of((X, 0), (torch.zeros(1, 8, 9), 1)), {}, r"\[1, 8, 8\] float32 in data.train: sample 0 and \[1, 8, 9\]"),
        (of(("text", 0)), {}, "the field 'input' is 'text'; expected a tensor, an array, a number or a PIL image"),
        (of((X / 0, 0)), {}, "data.train: sample 0: its input is not finite"),
        (
            of({"input": X, "mask": torch.zeros(8, dtype=torch.bool), "label": 1}), {},
            "data.train: sample 0: its mask is false everywhere",
        ),
        (Pictures(), {"mean": [0.5, 0.5], "std": [1.0, 1.0]}, r"data.mean has 2 numbers for inputs \[1, 8, 8\]"),
        (of((X, [0, 1])), {"test": None, "check": 1}, r"data.num_classes is needed: .* data.label_dtype=float instead"),
        (Pictures(), {"mean": [0.5]}, "data.mean and data.std go together"),
        (Pictures(), {"transform": 3}, "data.transform: int is not callable"),
        (Pictures(), {"transform": lambda image: image.nothing}, "function of data.train: sample 0 .*failed"),
        (Pictures(), {"collate": lambda samples: (X, 0)}, r"data.collate: 'input' is \[1, 8, 8\]; its first dimension"),
        (Pictures(), {"input_shape": [1, 9, 9]}, r"data.train: inputs are \[1, 8, 8\]; expected \[1, 9, 9\]"),
        (Pictures(), {"repeat": 0}, "data.repeat must be at least 1"),
        (Pictures(), {"test": of((torch.zeros(3, 8, 8), 1))}, r"data.test: inputs are \[3, 8, 8\]; expected \[1, 8"),
        (Pictures(), {"val": of((X, NO_LABEL))}, "^data.val: sample 0: its label is -100"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(train, arguments, said):
    with pytest.raises(TutelageError, match=said):
        data(train, **arguments).setup()


def test_a_sample_is_named_by_its_row_in_the_users_dataset_whatever_was_drawn_from_it():
    rows = [(X, i % 3) for i in range(300)]
    rows[250] = (X / 0, 1)
    with pytest.raises(TutelageError, match=r"^data\.train: sample 250: its input is not finite"):
        data(Listed(rows), test=None, check=None).setup()
    rows[250] = (torch.zeros(1, 8, 9), 1)
    with pytest.raises(TutelageError, match=r"and \[1, 8, 9\] float32 in data\.train: sample 250"):
        data(Listed(rows), test=None, check=None).setup()
    rows[250] = (X, 3)
    with pytest.raises(TutelageError, match=r"^data\.train: sample 250: its label is 3; expected 0 to 2"):
        data(Listed(rows), test=None, num_classes=3).setup()


@pytest.mark.parametrize("name", ["mask", "attention_mask"])
def test_a_text_without_a_token_is_named_wherever_it_stands(name):
    """Also beyond the samples that are looked at before training, and in batches of a collate of one's own."""
    rows = [{"input": torch.arange(6), name: torch.ones(6, dtype=torch.long), "label": i % 3} for i in range(300)]
    rows[250][name] = torch.zeros(6, dtype=torch.long)
    said = rf"^data\.train: sample 250: its {name} is false everywhere"
    with pytest.raises(TutelageError, match=said):
        data(Listed(rows), test=None, check=None).setup()
    for more in ({}, {"collate": torch.utils.data.default_collate}):
        made = data(Listed(rows), test=None, check=16, **more)
        made.setup()
        with pytest.raises(TutelageError, match=said):
            list(made.whole("train"))


def test_pictures_of_16_bits_keep_their_levels_and_what_is_transparent_is_white():
    deep = Image.fromarray((np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8))
    assert deep.mode == "I;16"
    shown = batch(data(Listed([(deep, 0), (deep, 1)] * 100), test=None).whole("train").dataset, 0)["input"]
    torch.testing.assert_close(shown[0, 0].flatten(), torch.arange(64) * 1040 / 65535, atol=1 / 255, rtol=0)
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    shown = batch(data(Listed([(clear, 0), (clear, 1)] * 100), test=None).whole("train").dataset, 0)["input"]
    assert shown.shape == (1, 3, 8, 8)
    assert shown.eq(1).all()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pictures_of_more_bits_are_refused(mode):
    odd = Image.new(mode, (8, 8), 700)
    with pytest.raises(TutelageError, match=rf"sample 0: the field 'input' is no plain picture: mode {mode} has more"):
        data(Listed([(odd, 0), (odd, 1)] * 100), test=None).setup()


def test_a_malformed_label_is_not_hidden_by_a_column_of_labels():
    class Column(Listed):
        targets = tuple(i % 3 for i in range(200))

    rows = [(X, i % 3) for i in range(200)]
    rows[107] = (X, [1, 2])
    with pytest.raises(TutelageError, match=r"data\.train: sample 107: its label is \[2\] torch\.int64"):
        data(Column(rows))


def test_a_sample_that_can_t_be_read_is_named():
    class Broken(Pictures):
        def __getitem__(self, row):
            if row == 599:
                raise FileNotFoundError("gone.png")
            return super().__getitem__(row)

    with pytest.raises(TutelageError, match=r"data.train: sample 599 can't be read: FileNotFoundError: gone.png"):
        data(Broken()).setup()


def test_a_collate_that_changes_labels_or_their_order_is_refused():
    def in_another_order(samples):
        images, labels = zip(*samples[::-1], strict=True)
        return {"input": torch.stack(images).float(), "label": torch.tensor(labels)}

    pairs = [(torch.full((1, 8, 8), float(i)), i % 3) for i in range(60)]
    with pytest.raises(
        TutelageError, match=r"data\.collate: the labels .* are not those of its samples, in their order"
    ):
        data(pairs, test=pairs, val_size=20, num_classes=3, collate=in_another_order).sample(4)
