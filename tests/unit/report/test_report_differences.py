"""Where teacher and student differ most, of tasks with several labels, numbers, or a class for each position."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from own_data import Listed

from tutelage.data.dataset import DatasetData
from tutelage.report import differences as module
from tutelage.report.differences import differences
from tutelage.report.document import Figure, Text
from tutelage.tasks.predictions import SavedPredictions, SavedTotals

KEYS = np.arange(6)


def predictions(logits, label):
    return SavedPredictions(np.asarray(logits, np.float32), np.asarray(label, np.float32), KEYS)


def totals(hits):
    return SavedTotals({"key": KEYS, "hits": np.asarray(hits), "positions": np.full(6, 10)})


@pytest.fixture
def shown(monkeypatch):
    """Returns the figure for what student and teacher stored; inputs are given."""

    def run(task, student, teacher, inputs=None):
        inputs = torch.rand(6, 1, 4, 4) if inputs is None else inputs
        rows = Listed([(x, i % 2) for i, x in enumerate(inputs)])
        data = DatasetData(train=rows, test=rows, seed=0, batch_size=2, val_size=2)
        data.setup()
        stored = {"student": student, "teacher": teacher}
        config = {"data": {"class_names": ["cat", "dog"]}}
        one = SimpleNamespace(place=lambda role: role, weights=lambda role, weights: weights, config=config)
        monkeypatch.setattr(module, "read_saved", lambda place, weights, split: stored[place])
        monkeypatch.setattr(module, "run_data", lambda *_: data)
        return differences(SimpleNamespace(runs={3: one}), task, "last")

    return run


def test_several_labels_are_named_and_the_greatest_difference_comes_first(shown):
    student = np.full((6, 2), -4.0)
    student[4] = [4, 4]
    label = np.tile([1.0, 0.0], (6, 1))
    [figure] = shown("multilabel", predictions(student, label), predictions(np.full((6, 2), -4.0), label))
    assert isinstance(figure, Figure)
    assert figure.title == "Where teacher and student differ most (seed 3)"
    assert figure.html.count("<li>") == 1  # the others say the same
    assert "Test image 4; true: cat; teacher: none; student: cat, dog" in figure.html


def test_numbers_beside_the_numbers_of_a_vector(shown):
    label = np.arange(6)[:, None]
    inputs = torch.arange(6 * 14).view(6, 14).float()
    said = label + np.array([[0], [0], [5], [0], [1], [0]])
    [figure] = shown("regression", predictions(said, label), predictions(label, label), inputs)
    assert figure.html.index("true 2, teacher 2, student 7") < figure.html.index("true 4, teacher 4, student 5")
    assert "<blockquote>28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39 …</blockquote>" in figure.html


@pytest.mark.parametrize("task", ["segmentation", "token_classification", "language_model"])
def test_positions_by_the_share_that_is_right(shown, task):
    [figure] = shown(task, totals([5, 5, 5, 5, 5, 1]), totals([5, 5, 9, 5, 5, 5]))
    assert figure.html.count("<li>") == 2
    assert "Test image 2; teacher: 90 % of positions right; student: 50 %" in figure.html


def test_without_answers_of_the_same_examples_there_is_a_note(shown):
    other = SavedTotals({"key": KEYS + 1, "hits": KEYS, "positions": KEYS})
    for teacher in (None, other):
        [note] = shown("segmentation", totals(KEYS), teacher)
        assert isinstance(note, Text)
        assert "answers of teacher and student on the same test set are needed" in note.text
    assert shown("segmentation", totals(KEYS), totals(KEYS)) == []
    [note] = shown("regression", totals(KEYS), predictions(np.ones((6, 1)), np.ones((6, 1))))
    assert "teacher and student stored different things" in note.text
