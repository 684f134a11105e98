import itertools

import pytest
import torch
from sklearn.datasets import load_digits

from tutelage import seeding
from tutelage.data.augment import Shift
from tutelage.data.digits import Digits
from tutelage.errors import TutelageError


def digits(**arguments):
    common = {"num_classes": 10, "input_shape": (1, 8, 8), "batch_size": 64, "val_size": 300, "seed": 0}
    return Digits(**(common | {"mean": [0.0], "std": [1.0]} | arguments))


def test_holds_scikit_learns_images_split_by_the_documented_rule():
    source = load_digits()
    order = torch.randperm(1797, generator=seeding.generator("digits", "test"))
    test, rest = order[:297].sort().values, order[297:].sort().values
    data = digits()
    for part, numbers in (("test", test), ("train", rest), ("val", rest)):
        batch = data.splits[part][0, torch.arange(len(data.splits[part]))]
        rows = numbers[batch["key"]]
        torch.testing.assert_close(batch["input"][:, 0], torch.tensor(source.images[rows] / 16).float())
        assert batch["label"].tolist() == source.target[rows].tolist()
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 1200, "val": 300, "test": 297}


def test_the_test_set_is_the_same_whatever_the_seeds():
    def test_images(**arguments):
        return digits(**arguments).splits["test"][0, torch.arange(297)]["input"]

    assert torch.equal(test_images(), test_images(seed=5, split_seed=7, val_size=0.5))


def test_mean_and_std_of_the_config_are_those_of_the_images():
    images = digits(mean=[0.3053], std=[0.3760]).sample(1200)["input"]
    assert abs(float(images.mean())) < 0.01
    assert abs(float(images.std()) - 1) < 0.01


@pytest.mark.parametrize("test_size", [0, 1797, 1.5])
def test_bad_test_size(test_size):
    with pytest.raises(TutelageError, match=f"data.test_size={test_size} of 1797"):
        digits(test_size=test_size).setup()


def test_further_inputs_are_other_pictures_of_the_same_examples_in_training_alone():
    data, plain = digits(augment=[Shift(1)], inputs=3), digits(augment=[Shift(1)])
    batch, alone = (next(iter(one.train_dataloader())) for one in (data, plain))
    assert torch.equal(batch["input"], alone["input"])
    pictures = [batch["input"], batch["input2"], batch["input3"]]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(pictures, 2))
    assert torch.equal(next(iter(data.with_seed(0).train_dataloader()))["input3"], batch["input3"])
    middles = [picture[:, :, 2:6, 2:6].mean((1, 2, 3)) for picture in pictures]
    for middle in middles[1:]:  # of the same drawings, at other places
        assert torch.corrcoef(torch.stack([middles[0], middle]))[0, 1] > 0.3
    assert "input2" not in next(iter(data.val_dataloader()))
    with pytest.raises(TutelageError, match=r"data\.inputs must be 1 or more, and more than 1 needs data\.augment"):
        digits(inputs=2)
