"""A teacher that can't be meant is told before anything is trained."""

import logging

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tutelage.checkpoints.weights import save_network
from tutelage.data.digits import Digits
from tutelage.errors import TutelageError
from tutelage.pipeline.teacher_checks import check_file, report_accuracy

HERE = {"mean": [0.3], "std": [0.4]}
NETWORK = OmegaConf.create({"_target_": "x"})


def data(**more):
    common = {"num_classes": 10, "input_shape": (1, 8, 8), "batch_size": 8, "val_size": 600, "test_size": 597}
    return Digits(**(common | {"seed": 0} | HERE | more))


@pytest.fixture
def check(tmp_path):
    def run(theirs, network=NETWORK, about=None, here=HERE, **more):
        path = tmp_path / "t.safetensors"
        header = {"input_shape": [1, 8, 8], **HERE, **theirs}
        save_network(nn.Linear(1, 1), path, {"network": {"_target_": "x"}, "data": header, **(about or {})})
        check_file(str(path), network, data(**more), OmegaConf.create(here))

    return run


def test_a_file_of_the_same_images_passes_and_so_does_one_that_says_nothing(check, tmp_path):
    check({})
    check({"mean": [0.3004], "std": [0.4002]})  # rounded
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "t.pt")
    check_file(str(tmp_path / "t.pt"), NETWORK, data(), OmegaConf.create(HERE))


def test_another_normalisation_is_refused_with_the_adapter_to_paste(check, compose):
    with pytest.raises(TutelageError, match=r"mean \[0\.5\] and std \[0\.25\].*data\.mean=\[0\.3\]") as told:
        check({"mean": [0.5], "std": [0.25]})
    line = next(line for line in str(told.value).splitlines() if "Renormalise" in line).strip().strip("'")
    adapter = compose(line).teacher.adapter
    assert dict(adapter) == {
        "_target_": "tutelage.models.adapter.Renormalise",
        "mean": [0.3], "std": [0.4], "to_mean": [0.5], "to_std": [0.25],
    }  # fmt: skip
    check({"mean": [0.5], "std": [0.25]}, OmegaConf.create({"adapter": adapter}))


def test_a_normalisation_of_one_side_alone_is_told(check, caplog):
    check({}, here={"mean": None, "std": None})
    assert "was trained with mean [0.3] and std [0.4], and data.mean is null" in caplog.text
    caplog.clear()
    check({"mean": None, "std": None})
    assert "was trained with mean null and std null, and data.mean is [0.3]" in caplog.text
    caplog.clear()
    check({"mean": None, "std": None}, here={})
    assert not caplog.text
    with pytest.raises(TutelageError, match=r"images \[1, 16, 16\], the data's are \[1, 8, 8\]"):
        check({"mean": None, "std": None, "input_shape": [1, 16, 16]}, here={})


def test_another_size_is_refused_with_both_adapters(check, compose):
    with pytest.raises(TutelageError, match=r"images \[1, 16, 16\], the data's are \[1, 8, 8\]") as told:
        check({"mean": [0.5], "input_shape": [1, 16, 16]})
    adapter, size = next(line for line in str(told.value).splitlines() if "Resize" in line).strip().split("' '")
    made = compose(adapter.strip("'"), size.strip("'")).teacher
    assert [step["_target_"].rpartition(".")[2] for step in made.adapter["_args_"]] == ["Resize", "Renormalise"]
    assert made.net.input_shape == [1, 16, 16]


def test_grey_and_colour(check):
    with pytest.raises(TutelageError, match="grey and colour images can't be converted"):
        check({"mean": [0.5] * 3, "std": [0.25] * 3, "input_shape": [3, 8, 8]})


def test_an_adapter_that_the_file_s_own_network_had_mends_nothing(check):
    own = {"_target_": "x", "adapter": {"_target_": "torch.nn.Identity"}}
    with pytest.raises(TutelageError, match="Renormalise"):
        check({"mean": [0.5]}, OmegaConf.create(own), {"network": own})


def test_classes_in_another_order_are_refused(check, caplog):
    names = [f"class {letter}" for letter in "abcdefghij"]
    check({}, about={"class_names": names}, class_names=names)
    check({}, about={"class_names": names})  # the data's have only numbers
    with pytest.raises(TutelageError, match="class 0 is 'class j' there and 'class a' in the data"):
        check({}, about={"class_names": names[::-1]}, class_names=names)
    assert not caplog.records
    check({}, about={"class_names": [*names[:9], "zebra"]}, class_names=names)
    assert "['zebra'] are not among the data's" in caplog.text


def said(labels, right, classes=10):
    """Logits of which ``right`` labels are the highest."""
    rows = torch.arange(len(labels))
    logits = torch.zeros(len(labels), classes)
    logits[rows, torch.where(rows < right, labels, (labels + 1 + rows % (classes - 1)) % classes)] = 1
    return logits


@pytest.mark.parametrize(("right", "chance"), [(100, True), (128, True), (129, False), (900, False)])
def test_within_three_deviations_of_the_most_frequent_class_is_chance(caplog, right, chance):
    caplog.set_level(logging.INFO)
    labels = torch.arange(1000) % 10  # 100 of each: 3 deviations are 28.46
    report_accuracy("t.pt", "validation", said(labels, right), labels)
    assert f"t.pt: accuracy {right / 10:.2f} % on 1000 validation examples" in caplog.text
    assert ("NO BETTER THAN CHANCE" in caplog.text) == chance
    assert ("PERHAPS NO" in caplog.text) == (right == 128)


def test_a_teacher_above_chance_on_few_examples_has_not_failed(caplog):
    labels = torch.arange(15) % 3
    report_accuracy("t.pt", "validation", said(labels, 10, 3), labels, trained_here=True)
    assert "PERHAPS NO BETTER THAN CHANCE: t.pt has accuracy 66.67 % on 15 validation examples" in caplog.text
    assert "has 33.33 %, of so few examples by chance up to 69.85 %" in caplog.text
    assert "failed" not in caplog.text


def test_the_most_frequent_class_is_what_chance_is_measured_by(caplog):
    labels = torch.cat([torch.zeros(900, dtype=torch.long), torch.ones(100, dtype=torch.long)])
    report_accuracy("t.pt", "validation", torch.tensor([[1.0, 0.0]]).expand(1000, 2), labels)
    assert "always predicting the most frequent class has 90.00 %" in caplog.text


def test_an_order_of_classes_that_would_be_right_is_told(caplog):
    labels = torch.arange(1000) % 10
    report_accuracy("t.pt", "validation", said(labels, 950).flip(1), labels)
    assert "reordered 95.0 % would be right: 0 is 9, 1 is 8" in caplog.text
