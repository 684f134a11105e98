"""data=diabetes: numbers to predict."""

import pytest
import torch
from hydra.utils import instantiate
from sklearn.datasets import load_diabetes


@pytest.fixture
def make(compose):
    return lambda *overrides: instantiate(compose("data=diabetes", *overrides).data)


def test_it_is_standardised_by_its_training_split_alone(make):
    data = make()
    whole = {part: next(iter(data.whole(part))) for part in ("train", "val", "test")}
    assert {part: len(batch["input"]) for part, batch in whole.items()} == {"train": 283, "val": 71, "test": 88}
    for name, width in (("input", 10), ("label", 1)):
        train = whole["train"][name].double()
        assert train.shape == (283, width)
        assert torch.allclose(train.mean(0), torch.zeros(width).double(), atol=1e-5)
        assert torch.allclose(train.std(0), torch.ones(width).double(), atol=1e-5)
        assert not torch.allclose(whole["test"][name].mean(0), torch.zeros(width), atol=1e-3)
    assert (data.num_classes, data.num_outputs, data.class_names) == (None, 1, ["progression"])


def test_every_patient_is_in_one_split_and_another_split_has_other_figures(make):
    labels = torch.cat([next(iter(make().whole(part)))["label"] for part in ("train", "val", "test")]).flatten()
    truth = torch.tensor(load_diabetes().target)
    found, wanted = (((x - x.mean()) / x.std()).sort().values.float() for x in (labels, truth))
    assert torch.allclose(found, wanted, atol=1e-5)
    first, other = (next(iter(make(f"data.split_seed={seed}").whole("test"))) for seed in (0, 1))
    assert not torch.equal(first["label"], other["label"])
    assert torch.equal(first["label"].argsort(0), other["label"].argsort(0))  # the same patients
