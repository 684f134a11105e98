import pytest
import torch
from sklearn.datasets import load_digits

from tutelage import seeding
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
