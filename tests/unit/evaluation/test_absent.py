"""Classes that were not trained on."""

import json
from itertools import pairwise

import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.evaluation.absent import absent_figures, best_offset, by_presence, shifted
from tutelage.evaluation.predictions import Predictions


def accuracy(logits, label, absent, offset):
    moved = logits.double().clone()
    moved[:, absent] += offset
    return float((moved.argmax(1) == label).double().mean())


def known(seed, count=60, classes=6, absent=(1, 4)):
    """A network that knows its classes, but puts the absent ones 3 too low."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (count,), generator=g)
    logits = torch.randn(count, classes, generator=g) + 2.5 * torch.nn.functional.one_hot(label, classes)
    logits[:, list(absent)] -= 3
    return Predictions(logits, label, torch.arange(count))


@pytest.mark.parametrize("absent", [[3], [1, 4], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("seed", range(5))
def test_no_offset_is_better_and_of_equals_none_smaller_is_a_candidate(seed, absent):
    p = known(seed, absent=absent)
    found = best_offset(p.logits, p.label, absent)
    best = accuracy(p.logits, p.label, absent, found)
    assert best == max(accuracy(p.logits, p.label, absent, b / 100) for b in [*range(-1500, 1500), 100 * found])
    assert best > accuracy(p.logits, p.label, absent, 0)
    present = [c for c in range(6) if c not in absent]
    z = p.logits.double()
    margins = sorted({float(m) for m in z[:, present].amax(1) - z[:, absent].amax(1)})
    middles = [(a + b) / 2 for a, b in pairwise(margins)]
    equals = [b for b in [0.0, margins[0] - 1, *middles, margins[-1] + 1] if accuracy(z, p.label, absent, b) == best]
    assert found == min(equals, key=abs)


def test_raising_the_absent_is_lowering_the_present():
    """The paper's way where only 7 and 8 were there."""
    p, absent = known(0), [0, 2, 3, 5]
    offset = best_offset(p.logits, p.label, absent)
    lowered = p.logits.double()
    lowered[:, [1, 4]] -= offset
    assert torch.equal(lowered.argmax(1), shifted(p, absent, offset).choice)


@pytest.mark.parametrize(
    ("logits", "label", "offset"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], [0, 1], 0.0),  # all right as they are, margins 1 and -1
        ([[3.0, 0.0], [5.0, 0.0]], [1, 0], 4.0),  # right between margins 3 and 5
        ([[3.0, 0.0], [5.0, 0.0]], [1, 1], 6.0),  # beyond the last
        ([[0.0, 3.0], [0.0, 5.0]], [0, 0], -6.0),  # before the first
        ([[3.0, 0.0], [3.0, 0.0]], [0, 1], 0.0),  # one of two, whatever the offset
        ([[1.0, 1.0], [1.0, 1.0]], [0, 0], 0.0),  # equal logits are the first's, and right
        ([[1.0, 1.0], [2.0, 1.0]], [1, 0], 0.5),  # equal logits are the first's, and wrong
    ],
)
def test_by_hand(logits, label, offset):
    assert best_offset(torch.tensor(logits), torch.tensor(label), [1]) == offset


def test_accuracy_by_presence():
    logits = torch.eye(3)[[0, 1, 1, 2, 0]]
    p = Predictions(logits, torch.tensor([0, 1, 0, 2, 2]), torch.arange(5))
    expected = {"accuracy_absent": 0.5, "count_absent": 2, "accuracy_present": 2 / 3, "count_present": 3}
    assert by_presence(p, [2]) == expected
    assert by_presence(p, [0, 2])["accuracy_present"] == 1
    none = by_presence(Predictions(logits[:3], torch.tensor([0, 1, 0]), torch.arange(3)), [2])
    assert none == {"accuracy_absent": None, "count_absent": 0, "accuracy_present": 2 / 3, "count_present": 3}


def test_the_document_chooses_on_validation_and_reports_test():
    val, test, absent = known(0, 400), known(1, 300), [4, 1]
    document = absent_figures(val, test, absent)
    assert document["classes"] == [1, 4]
    assert document["offset"] == best_offset(val.logits, val.label, absent)
    assert document["test"] == by_presence(test, absent)
    corrected = document["corrected"]["test"]
    assert corrected["accuracy"] == pytest.approx(accuracy(test.logits, test.label, absent, document["offset"]))
    assert corrected["errors"] == round(300 * (1 - corrected["accuracy"]))
    assert corrected["accuracy_absent"] > document["test"]["accuracy_absent"] + 0.3
    assert document["corrected"]["val"]["accuracy"] == accuracy(val.logits, val.label, absent, document["offset"])
    assert json.loads(json.dumps(document)) == document
    other = absent_figures(val, Predictions(test.logits.flip(0), test.label, test.key), absent)
    assert other["offset"] == document["offset"]


@pytest.mark.parametrize("absent", [[], [0, 1, 2, 3, 4, 5], [6], [-1]])
def test_classes_that_cannot_be_absent(absent):
    p = known(0)
    with pytest.raises(TutelageError, match=r"some of 0 to 5 and not all; found \["):
        best_offset(p.logits, p.label, absent)
