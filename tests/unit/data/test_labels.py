"""Labels of any shape: one class, several answers, numbers, a class for each pixel or token."""

import numpy as np
import pytest
import torch
from own_data import Listed
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from tutelage.data.augment import Flip, Shift
from tutelage.data.base import ImageData
from tutelage.data.dataset import DatasetData
from tutelage.data.examples import Examples
from tutelage.data.labels import has_label, no_labels
from tutelage.data.pixels import MemoryPixels
from tutelage.data.samplers import ClassBalanced
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

N = 40
KINDS = {
    "class": torch.arange(N) % 3,
    "answers": (torch.arange(N)[:, None] % torch.tensor([2, 3, 5, 7]) == 0).float(),
    "numbers": torch.linspace(-1, 1, N)[:, None] * torch.tensor([1.0, 10.0]),
    "pixels": torch.arange(N * 16).reshape(N, 4, 4) % 3,
    "tokens": torch.arange(N * 5).reshape(N, 5) % 3,
}
IMAGES = torch.arange(N, dtype=torch.float32).div(N)[:, None, None, None].expand(N, 1, 4, 4).contiguous()
WIDTHS = {"class": 3, "answers": 4, "numbers": 2, "pixels": 3, "tokens": 3}
EACH = pytest.mark.parametrize("kind", KINDS)
NOT_CLASS = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "class"])


def arguments(kind, **given):
    floats = KINDS[kind].is_floating_point()
    size = {"num_classes": None, "num_outputs": WIDTHS[kind]} if floats else {"num_classes": 3}
    return {**size, "batch_size": 4, "val_size": 10, "seed": 0, **given}


class Held(ImageData):
    """In memory, as our own data are."""

    def __init__(self, kind, labels=None, **given):
        super().__init__(input_shape=(1, 4, 4), mean=[0.0], std=[1.0], **arguments(kind, **given))
        self.given = KINDS[kind] if labels is None else labels

    def load(self):
        return Examples(MemoryPixels(IMAGES), self.given), Examples(MemoryPixels(IMAGES), KINDS[self.kind])

    @property
    def kind(self):
        return next(name for name, labels in KINDS.items() if labels.shape == self.given.shape)


def samples(labels):
    return Listed(list(zip(IMAGES, labels, strict=True)))


def owned(kind, labels=None, **given):
    labels = KINDS[kind] if labels is None else labels
    return DatasetData(train=samples(labels), test=samples(KINDS[kind]), **arguments(kind, **given))


BOTH = pytest.mark.parametrize("make", [Held, owned])


def batches(loader, number=0):
    loader.sampler.set_epoch(number)
    found = list(loader)
    return {name: torch.cat([batch[name] for batch in found]) for name in found[0]}


@EACH
@BOTH
def test_a_batch_has_the_label_of_each_key(make, kind):
    data = make(kind)
    assert data.num_outputs == WIDTHS[kind]
    assert data.class_names == [str(i) for i in range(WIDTHS[kind])]
    for loader in (data.train_dataloader(), data.val_dataloader(), data.whole("test")):
        found = batches(loader)
        assert torch.equal(found["label"], KINDS[kind][found["key"]])
        assert found["label"].dtype == (torch.float32 if KINDS[kind].is_floating_point() else torch.int64)
    assert data.sample(5)["label"].shape == (5, *KINDS[kind].shape[1:])


@EACH
def test_keys_split_and_order_are_those_of_any_label(kind):
    wanted, found = (batches(Held(one).train_dataloader(), 3)["key"] for one in ("class", kind))
    assert torch.equal(wanted, found)


@EACH
@BOTH
def test_few_labels_hide_the_others_whatever_their_shape(make, kind):
    data = make(kind, labelled=12, repeat_labelled=2)
    found = batches(data.whole("train"))
    known = has_label(found["label"])
    assert int(known.sum()) == 12
    assert torch.equal(found["label"][known], KINDS[kind][found["key"][known]])
    assert torch.equal(found["label"][~known].isnan(), no_labels(18, KINDS[kind]).isnan())
    again = batches(make(kind, labelled=12, seed=5).whole("train"))
    assert torch.equal(has_label(again["label"]), known)
    assert batches(data.labelled())["key"].tolist() == found["key"][known].tolist()
    assert len(data.per_epoch(data.splits["train"])) == 42
    assert has_label(data.sample(8)["label"]).tolist() == [True] * 4 + [False] * 4


@EACH
@BOTH
def test_further_examples_have_no_label(make, kind):
    class More:
        def load(self, shape):
            return Examples(MemoryPixels(torch.zeros(6, *shape)), torch.full((6,), NO_LABEL))

    more = More() if make is Held else Listed(list(IMAGES[:6]))
    data = make(kind, unlabelled=[more])
    found = batches(data.whole("train"))
    assert found["key"][-6:].tolist() == list(range(N, N + 6))
    assert not has_label(found["label"][-6:]).any()
    assert has_label(found["label"][:-6]).all()
    alone = data.splits["train"][0, torch.tensor([30, 31])]["label"]
    assert alone.shape == (2, *KINDS[kind].shape[1:])


@pytest.mark.parametrize("given", [{"classes": [0, 1]}, {"focus": [0]}, {"sampler": ClassBalanced()}])
@NOT_CLASS
@BOTH
def test_what_needs_a_class_is_refused_for_other_labels(make, kind, given):
    with pytest.raises(TutelageError, match="needs labels that are one class an example; these are"):
        make(kind, **given).setup()


@NOT_CLASS
def test_no_class_is_absent_where_examples_have_several(kind):
    assert Held(kind).absent == []
    assert Held("class").absent == []


@EACH
def test_a_label_changes_the_fingerprint(kind):
    other = KINDS[kind].clone()
    other[3] = other[4] if kind != "class" else (other[3] + 1) % 3
    assert Held(kind).fingerprint() == Held(kind).fingerprint() != Held(kind, other).fingerprint()


@pytest.mark.parametrize(
    ("kind", "place", "value", "message"),
    [
        ("class", 7, 3, "index 7: its label is 3; expected 0 to 2"),
        (
            "pixels",
            (7, 1, 2),
            3,
            r"its label at \[1, 2\] is 3; expected 0 to 2, or -100 where none counts",
        ),
        ("pixels", 7, NO_LABEL, r"the example at index 7 has no label \(1 have none\)"),
        ("answers", (7, 1), float("inf"), "number 1 of its label is inf"),
        ("numbers", 7, float("nan"), r"index 7: its label is NaN everywhere \(1 of 40 are\)"),
    ],
)
def test_a_wrong_label_is_named(kind, place, value, message):
    labels = KINDS[kind].clone()
    labels[place] = value
    with pytest.raises(TutelageError, match=message):
        Held(kind, labels).setup()


def test_one_of_several_may_be_unknown():
    labels = KINDS["answers"].clone()
    labels[7, 1] = float("nan")
    assert batches(owned("answers", labels).whole("train"))["label"].isnan().sum() <= 1
    pixels = KINDS["pixels"].clone()
    pixels[:, 0] = NO_LABEL
    assert torch.equal(batches(Held("pixels", pixels).whole("train"))["label"][:, 0], torch.full((30, 4), NO_LABEL))


@pytest.mark.parametrize("kind", ["pixels", "tokens"])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_split_without_any_label_of_a_pixel_or_token_is_refused_by_its_name(kind, part):
    def given(first):
        sets = {name: KINDS[kind].clone() for name in ("train", "val", "test")}
        sets[part][:first] = 255
        made = {name: samples(labels) for name, labels in sets.items()}
        return DatasetData(**made, **arguments(kind, ignore_index=255, check=4))

    with pytest.raises(TutelageError, match=rf"no label of the {part} split is known, .* its 40 .*data\.ignore_index"):
        given(N).setup()
    given(N - 1).setup()  # the last example alone has labels, beyond those that are checked


def test_a_validation_set_that_is_drawn_without_any_label_is_refused():
    labels = KINDS["pixels"].clone()
    labels[owned("pixels").splits["val"].keys] = NO_LABEL
    with pytest.raises(TutelageError, match=r"no label of the val split is known, .*measured on its 10 examples"):
        owned("pixels", labels).setup()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_classes": 3, "num_outputs": 4}, "data.num_outputs=4: there are 3 classes"),
        ({"num_classes": None, "num_outputs": None}, "data.num_classes is needed, or data.num_outputs"),
        ({"num_classes": None, "num_outputs": 0}, "data.num_outputs must be at least 1; found 0"),
        ({"num_classes": None, "num_outputs": 3}, "3 an example"),
        ({"num_classes": 4, "num_outputs": None}, "labels must be integers; found torch.float32"),
        ({"class_names": ["a"]}, "data.class_names has 1 names for 4 outputs"),
    ],
)
def test_widths_that_do_not_fit_are_refused(given, message):
    with pytest.raises(TutelageError, match=message):
        Held("answers", **given).setup()


# -- a dataset of one's own --------------------------------------------------------------------------------------------


@EACH
def test_the_widths_of_one_s_own_data_are_found(kind):
    tensors = TensorDataset(IMAGES, KINDS[kind])
    for train in (tensors, Subset(tensors, range(35)), samples(KINDS[kind])):
        data = DatasetData(train=train, test=tensors, batch_size=4, val_size=10, seed=0)
        assert data.num_classes == (None if KINDS[kind].is_floating_point() else 3)
        assert data.num_outputs == WIDTHS[kind]
        found = data.splits["test"][0, torch.tensor([3, 8])]
        assert torch.equal(found["label"], KINDS[kind][[3, 8]])


def test_plain_numbers_and_lists_are_labels():
    one = DatasetData(train=Listed([(x, float(x.mean())) for x in IMAGES]), batch_size=4, seed=0)
    assert one.num_outputs == 1
    assert one.sample(3)["label"].shape == (3, 1)
    several = DatasetData(
        train=Listed([(x, [True, False, i % 2 == 0]) for i, x in enumerate(IMAGES)]), batch_size=4, seed=0
    )
    assert several.num_outputs == 3
    assert several.sample(1)["label"].dtype == torch.float32


def test_label_dtype_makes_numbers_of_integers_and_back():
    ages = DatasetData(train=TensorDataset(IMAGES, torch.arange(N)), label_dtype="float", batch_size=4, seed=0)
    assert ages.num_classes is None
    assert ages.num_outputs == 1
    ticked = DatasetData(train=samples(KINDS["answers"].long()), label_dtype="float", batch_size=4, seed=0)
    assert ticked.num_outputs == 4
    classes = DatasetData(train=samples(KINDS["class"].float()), label_dtype="int", batch_size=4, seed=0)
    assert classes.num_classes == 3
    with pytest.raises(TutelageError, match="label_dtype must be int, float or null; found 'bool'"):
        DatasetData(train=samples(KINDS["class"]), label_dtype="bool", batch_size=4, seed=0)
    with pytest.raises(TutelageError, match=r"sample 0: its label is 0.5; data.label_dtype=int needs whole numbers"):
        DatasetData(train=samples(KINDS["class"] + 0.5), label_dtype="int", batch_size=4, seed=0)


def test_a_picture_of_classes_is_a_label_and_a_number_may_stand_for_none():
    masks = KINDS["pixels"].clone()
    masks[:, 0, 0] = 255
    pictures = [Image.fromarray(mask.numpy().astype(np.uint8)) for mask in masks]
    data = DatasetData(train=samples(pictures), num_classes=3, ignore_index=255, batch_size=4, seed=0)
    label = data.sample(4)["label"]
    assert label[:, 0, 0].tolist() == [NO_LABEL] * 4
    assert label.max() == 2
    with pytest.raises(
        TutelageError, match=r"data.train: sample 0: its label is 255 at \[0, 0\]; expected 0 to 2, or -100"
    ):
        DatasetData(train=samples(pictures), num_classes=3, batch_size=4, seed=0).setup()


def test_the_number_of_classes_of_pixels_is_asked_for_where_it_would_take_long_to_find():
    with pytest.raises(TutelageError, match=r"data.num_classes is needed: not all labels are read to find the largest"):
        DatasetData(train=samples(KINDS["pixels"]), check=8, batch_size=4, seed=0)


def test_a_wrong_class_of_a_pixel_is_named_when_it_comes():
    labels = KINDS["pixels"].clone()
    labels[17, 2, 3] = 9
    data = DatasetData(train=samples(labels), test=samples(KINDS["pixels"]), num_classes=3, check=2, batch_size=4,
                       val_size=10, seed=0)  # fmt: skip
    with pytest.raises(TutelageError, match=r"data.train: sample 17: its label is 9 at \[2, 3\]"):
        [*data.whole("train"), *data.val_dataloader()]


def test_a_transform_moves_picture_and_label_together():
    def mirrored(image, label):
        return image.flip(-1), label.flip(-1)

    data = owned("pixels", train_transform=mirrored, transform_fields=["input", "label"])
    found = batches(data.train_dataloader())
    assert torch.equal(found["label"], KINDS["pixels"][found["key"]].flip(-1))
    assert torch.equal(batches(data.val_dataloader())["label"], KINDS["pixels"][batches(data.val_dataloader())["key"]])
    numbers = owned("numbers", train_transform=lambda x, y: (x, -y), transform_fields=["input", "label"])
    found = batches(numbers.train_dataloader())
    assert torch.equal(found["label"], -KINDS["numbers"][found["key"]])


def corners(kind):
    """Pictures whose label has a mark where the picture has one, as tensors, arrays or PIL images."""
    found = []
    for i in range(40):
        image = torch.zeros(1, 6, 6, dtype=torch.uint8)
        image[0, i % 5, 1 + i % 4] = 255
        label = (image[0] > 0).long()
        if kind == "array":
            image, label = image[0].numpy(), label.numpy()
        if kind == "PIL":
            image, label = Image.fromarray(image[0].numpy()), Image.fromarray(label.numpy().astype(np.uint8))
        found.append((image, label))
    return Listed(found)


@pytest.mark.parametrize("kind", ["tensor", "array", "PIL"])
def test_torchvision_moves_pixels_and_their_labels_together(kind):
    v2 = pytest.importorskip("torchvision.transforms.v2", reason="needs the vision extra")
    steps = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.RandomCrop(6, padding=2)]
    data = DatasetData(train=corners(kind), test=corners(kind), num_classes=2, batch_size=4, seed=0,
                       train_transform=v2.Compose(steps), transform_fields=["input", "label"])  # fmt: skip
    found, plain = batches(data.train_dataloader()), batches(data.whole("train"))
    assert torch.equal(found["input"][:, 0] > 0.5, found["label"] == 1)
    order = found["key"].argsort()
    assert not torch.equal(found["label"][order], plain["label"][plain["key"].argsort()][: len(order)])


def test_a_transform_by_name_gets_label_and_picture():
    """As albumentations' are called."""

    class Rolled:
        def __call__(self, *args, image, mask, force_apply=False):
            assert not args
            return {"image": np.roll(image, 2, 1), "mask": np.roll(mask, 2, 1)}

    data = DatasetData(train=corners("array"), test=corners("array"), num_classes=2, batch_size=4, seed=0,
                       train_transform=Rolled(), transform_fields={"image": "input", "mask": "label"})  # fmt: skip
    found = batches(data.train_dataloader())
    assert torch.equal(found["input"][:, 0] > 0.5, found["label"] == 1)


@pytest.mark.parametrize("key", ["transform", "train_transform"])
def test_a_transform_that_may_leave_labels_of_pixels_behind_is_refused(key):
    with pytest.raises(
        TutelageError, match=rf"data.{key} changes inputs alone.*data.transform_fields=\[input, label\]"
    ):
        owned("pixels", **{key: lambda image: image.flip(-1)})
    made = owned("pixels", **{key: lambda image: image * 2}, transform_fields=["input"])
    found = batches(made.train_dataloader())
    assert torch.equal(found["label"], KINDS["pixels"][found["key"]])
    owned("class", **{key: lambda image: image.flip(-1)})  # one label moves nowhere


def test_a_collate_of_one_s_own_pads_the_labels_of_tokens():
    def padded(given):
        longest = max(len(label) for _, label in given)
        labels = [torch.nn.functional.pad(y, (0, longest - len(y)), value=NO_LABEL) for _, y in given]
        return torch.stack([x for x, _ in given]), torch.stack(labels)

    ragged = Listed([(x, y[: 2 + i % 4]) for i, (x, y) in enumerate(zip(IMAGES, KINDS["tokens"], strict=True))])
    data = DatasetData(train=ragged, test=ragged, num_classes=3, collate=padded, batch_size=4, seed=0)
    batch = data.splits["val"][0, torch.arange(3)]
    assert batch["label"].shape[1] <= 5
    assert torch.equal((batch["label"] != NO_LABEL).sum(1), 2 + batch["key"] % 4)
    with pytest.raises(
        TutelageError, match=r"'label' is \[2\] int64 in data.train: sample 0 and \[4\] int64 in data.train: sample"
    ):
        DatasetData(train=ragged, num_classes=3, batch_size=4, seed=0).setup()


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("numbers", "answers", r"data.test: labels are \[4\] floats an example; those of data.train are \[2\] floats"),
        (
            "class",
            "pixels",
            "data.test: labels are integers with 2 axes an example; those of data.train are one class an",
        ),
    ],
)
def test_parts_of_other_labels_are_refused(train, test, message):
    with pytest.raises(TutelageError, match=message):
        DatasetData(train=samples(KINDS[train]), test=samples(KINDS[test]), batch_size=4, seed=0)


def test_labels_of_different_lengths_are_named():
    odd = Listed([(x, torch.ones(2 + (i == 5))) for i, x in enumerate(IMAGES)])
    with pytest.raises(
        TutelageError, match=r"data.train: sample 5: its label is \[3\] torch.float32; that of sample 0"
    ):
        DatasetData(train=odd, batch_size=4, seed=0)


class Brighter:
    draws = 1

    def __call__(self, images, chance):
        return images * chance[:, :, None, None]


def test_augmentation_moves_labels_of_pixels_or_is_refused():
    levels = torch.arange(N)[:, None, None] % 3
    labels = levels.expand(N, 4, 4).clone()
    labels[:, :, 0] = 0
    images = labels[:, None] / 2

    class Marked(Held):
        def load(self):
            return (Examples(MemoryPixels(images), labels),) * 2

    data = Marked("pixels", augment=[Shift(1, fill=1.0), Flip()])
    found = batches(data.train_dataloader(), 2)
    known = found["label"] != NO_LABEL
    assert torch.equal((2 * found["input"][:, 0]).long()[known], found["label"][known])
    assert not known.all()
    with pytest.raises(
        TutelageError, match=r"data.augment: Brighter changes images, and labels are one for each pixel"
    ):
        Held("pixels", augment=[Brighter()]).setup()
    Held("class", augment=[Brighter()]).setup()
    with pytest.raises(TutelageError, match=r"labels of Coarse train are \[2, 2\] and images \[4, 4\]"):
        type("Coarse", (Held,), {"load": lambda self: (Examples(MemoryPixels(images), labels[:, ::2, ::2]),) * 2})(
            "pixels", augment=[Flip()]
        ).setup()
