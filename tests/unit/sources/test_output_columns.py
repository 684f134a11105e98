"""Columns of outputs by name; outputs that are not what is said of them; how right a file is, before training."""

import logging

import numpy as np
import pytest
import torch

from tutelage.data.digits import Digits
from tutelage.errors import TutelageError
from tutelage.sources.black_box import BlackBoxTeacher
from tutelage.sources.output_columns import class_order
from tutelage.sources.outputs import as_logits
from tutelage.sources.recorded import RecordedFile

CLASSES = ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    ("columns", "order"),
    [
        (["cat", " ant", "bee "], [1, 2, 0]),
        (["2", "1", "0"], [2, 1, 0]),
        (["p_3", "p_1", "p_2"], [1, 2, 0]),
        (["logit00", "logit01", "logit02"], [0, 1, 2]),
        (["x", "y", "z"], [0, 1, 2]),
    ],
)
def test_columns_are_taken_by_name_or_number(columns, order, caplog):
    caplog.set_level(logging.INFO)
    assert class_order(columns, CLASSES, "t.csv") == order
    told = {"x": "assigned by position", "logit00": "by their numbers, from 0", "cat": "another order than the classes"}
    assert told.get(columns[0], "assigned by their numbers") in caplog.text


def test_numbers_are_used_only_if_every_name_has_one():
    assert class_order(["p_2", "x", "p_1"], CLASSES, "t.csv") == [0, 1, 2]
    assert class_order(["p_3", "q_1", "p_2"], CLASSES, "t.csv") == [0, 1, 2]


def test_of_many_columns_without_names_of_classes_the_first_ten_are_shown(caplog):
    columns, classes = [f"{c}x" for c in "abcdefghijkl"], list("ABCDEFGHIJKL")
    assert class_order(columns, classes, "t.csv") == list(range(12))
    assert f"columns {columns[:10]} do not have the names of the classes {classes[:10]};" in caplog.text


def test_rows_that_sum_to_1_are_logits_where_one_is_negative_or_there_is_one_class():
    keys = [1, 2]
    below, two = np.array([[1.5, -0.5], [2.0, -1.0]]), np.array([[0.5, 0.5], [0.75, 0.25]])
    np.testing.assert_allclose(as_logits(below, "logits", 2, 1e-9, "box", keys), below)
    np.testing.assert_allclose(as_logits(np.ones((2, 1)), "logits", 1, 1e-9, "box", keys), np.ones((2, 1)))
    with pytest.raises(TutelageError, match=r"all 2 rows .* look like probabilities"):
        as_logits(two, "logits", 2, 1e-9, "box", keys)
    with pytest.raises(TutelageError, match=r"all 2 rows .* look like probabilities"):
        as_logits(np.eye(2), "logits", 2, 1e-9, "box", keys)  # of a teacher that is sure


def test_names_of_classes_that_are_numbers_are_names():
    folders = ["0", "1", "10", "2"]  # the alphabet's order
    assert class_order(["0", "1", "2", "10"], folders, "t.csv") == [0, 1, 3, 2]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["ant", "bee"], "expected a column for each of 3 classes; found 2"),
        (["ant", "bee", "bee"], r"found \['bee'\] several times"),
        (["ant", "bee", "cut"], r"columns \['cut'\] are not names of classes; 'cut': did you mean 'cat'"),
        (["0", "1", "3"], "count from 0 or 1 without a gap"),
        (["2", "3", "4"], "count from 0 or 1 without a gap"),
    ],
)
def test_columns_that_are_not_the_classes_are_refused(columns, said):
    with pytest.raises(TutelageError, match="t.csv: .*" + said):
        class_order(columns, CLASSES, "t.csv")


def digits(**more: object) -> Digits:
    sizes = {"num_classes": 10, "input_shape": [1, 8, 8], "batch_size": 32, "val_size": 300, "test_size": 597}
    return Digits(**sizes, seed=0, mean=[0.3], std=[0.4], **more)


def write(path, values, names):
    rows = [",".join([str(key), *map(repr, row)]) for key, row in enumerate(values.tolist())]
    path.write_text("\n".join([",".join(["key", *names]), *rows]) + "\n")
    return str(path)


def right(data: Digits) -> torch.Tensor:
    """Logits that are right for every training and validation example."""
    labels = torch.zeros(1200, dtype=torch.long)
    for split in ("train", "val"):
        labels[data.splits[split].keys] = data.splits[split].labels
    return 5.0 * torch.eye(10)[labels] - 1.0


def test_a_table_whose_classes_run_backwards_teaches_the_right_ones(tmp_path):
    data = digits()
    path = write(tmp_path / "t.csv", right(data).flip(1), [str(c) for c in range(9, -1, -1)])
    source = RecordedFile(path, "logits", 10)
    with pytest.raises(TutelageError, match="named columns"):
        source({"key": torch.tensor([0])})
    for _ in range(2):  # told again before every training
        source.name_classes(data.class_names)
        assert torch.equal(source({"key": torch.arange(1200)})["logits"], right(data))
    for logits, labels in source.graded(data).values():
        assert torch.equal(logits.argmax(1), labels)


def test_a_file_is_measured_on_labelled_examples_alone(tmp_path):
    data = digits()
    np.savez(tmp_path / "t.npz", key=np.arange(1200), logits=right(data).numpy())
    source = RecordedFile(str(tmp_path / "t.npz"), "logits", 10)
    found = source.graded(digits(labelled=100))
    assert {split: len(labels) for split, (_, labels) in found.items()} == {"training": 100, "validation": 300}


SOFT = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).softmax(1).numpy()


@pytest.mark.parametrize(("factor", "what"), [(1, "probabilities"), (100, "percentages")])
def test_softmax_rows_are_no_logits_unless_it_is_said(factor, what):
    arguments = (SOFT * factor, "logits", 3, 1e-30, "t.npz", range(6))
    with pytest.raises(TutelageError, match=rf"all 6 rows .* sum to {factor}: these look like {what} .*kind=prob"):
        as_logits(*arguments)
    np.testing.assert_allclose(as_logits(*arguments, allow_normalised=True), SOFT * factor, rtol=1e-6)


def test_logits_that_only_nearly_look_so_pass():
    for odd in (np.log(SOFT), SOFT * 2, SOFT - 0.001, np.concatenate([SOFT, [[1.0, 2.0, 3.0]]])):
        as_logits(odd, "logits", 3, 1e-30, "t.npz", range(len(odd)))


def test_what_probabilities_may_be_instead_is_said():
    with pytest.raises(TutelageError, match="Divide percentages by 100"):
        as_logits(SOFT * 100, "probabilities", 3, 1e-30, "t.npz", range(6))
    with pytest.raises(TutelageError, match="logarithms of probabilities: kind=logits"):
        as_logits(np.log(SOFT), "probabilities", 3, 1e-30, "t.npz", range(6))


def test_a_black_box_that_answers_probabilities_as_logits_is_refused(tmp_path):
    def ask(images):
        return np.full((len(images), 10), 0.1, np.float32)

    batch = digits().sample(4)
    box = BlackBoxTeacher(ask, "logits", 10, str(tmp_path), "box")
    with pytest.raises(TutelageError, match=r"box: all 4 rows .* look like probabilities"):
        box(batch)
    BlackBoxTeacher(ask, "logits", 10, str(tmp_path), "box", allow_normalised=True)(batch)


def test_a_black_box_is_measured_on_the_first_validation_images(tmp_path):
    data, asked = digits(), []

    def ask(images):
        asked.extend(images)
        return images.reshape(len(images), -1)[:, :10]

    logits, labels = BlackBoxTeacher(ask, "logits", 10, str(tmp_path), "box").graded(data)["validation"]
    assert logits.shape == (256, 10)
    assert torch.equal(labels, data.splits["val"].labels[:256])
    assert len(asked) <= 256
