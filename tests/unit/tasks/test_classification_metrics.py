import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch

from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import Predictions
from tutelage.tasks.metrics.classification import confusion, expected_calibration_error, figures


def make(n=400, classes=7, seed=0, scale=2.0, skill=1.5):
    """Logits on a grid of 1/8, so that adding a whole number to them is exact."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (n,), generator=g)
    logits = scale * torch.randn(n, classes, generator=g)
    logits[torch.arange(n), label] += skill
    return Predictions((logits * 8).round() / 8, label, torch.arange(n))


def of(rows, labels, keys=None):
    logits = torch.tensor(rows)
    return Predictions(logits, torch.tensor(labels), torch.arange(len(labels)) if keys is None else torch.tensor(keys))


def probabilities(p):
    z = p.logits.numpy().astype(np.float64)
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def ece_of_the_formula(p, bins):
    q, label = probabilities(p), p.label.numpy()
    confidence, right = q.max(1), q.argmax(1) == label
    total = 0.0
    for b in range(1, bins + 1):
        inside = (confidence > (b - 1) / bins) & (confidence <= b / bins)
        if inside.any():
            total += inside.sum() / len(label) * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize(("n", "classes", "seed"), [(400, 7, 0), (33, 2, 1), (1, 10, 2), (1000, 100, 3)])
def test_every_figure_matches_a_float64_oracle(n, classes, seed):
    p, teacher = make(n, classes, seed), make(n, classes, seed + 10)
    teacher = Predictions(teacher.logits, p.label, p.key)
    q, t, label = probabilities(p), probabilities(teacher), p.label.numpy()
    wrong = (q.argmax(1) != label).sum()
    assert figures(p, teacher) == {
        "accuracy": pytest.approx(1 - wrong / n, abs=1e-15),
        "errors": wrong,
        "nll": pytest.approx(-np.log(q[np.arange(n), label]).mean(), rel=1e-12),
        "ece": pytest.approx(ece_of_the_formula(p, 15), abs=1e-12),
        "count": n,
        "agreement": pytest.approx((q.argmax(1) == t.argmax(1)).mean(), abs=1e-15),
        "kl_teacher": pytest.approx((t * (np.log(t) - np.log(q))).sum(1).mean(), rel=1e-12),
    }


def test_sklearn_and_scipy_agree():
    p = make()
    teacher = Predictions(make(seed=5).logits, p.label, p.key)
    q, found = probabilities(p), figures(p, teacher)
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(p.label, q.argmax(1)))
    assert found["nll"] == pytest.approx(sklearn.metrics.log_loss(p.label, q, labels=range(7)), rel=1e-12)
    assert found["kl_teacher"] == pytest.approx(
        scipy.stats.entropy(probabilities(teacher), q, axis=1).mean(), rel=1e-12
    )
    assert confusion(p).tolist() == sklearn.metrics.confusion_matrix(p.label, q.argmax(1)).tolist()


def test_torchmetrics_agrees_on_calibration_where_no_confidence_lies_on_an_edge():
    from torchmetrics.functional.classification import multiclass_calibration_error

    p = make()
    expected = multiclass_calibration_error(torch.from_numpy(probabilities(p)), p.label, num_classes=7, n_bins=15)
    assert expected > 0.05
    assert expected_calibration_error(p) == pytest.approx(float(expected), abs=1e-6)


def test_counts_are_integers_and_without_a_teacher_there_is_no_fidelity():
    found = figures(make())
    assert list(found) == ["accuracy", "errors", "nll", "ece", "count"]
    assert type(found["errors"]) is int
    assert type(found["count"]) is int


def test_adding_a_number_to_all_logits_of_an_example_changes_nothing():
    p = make()
    teacher = Predictions(make(seed=5).logits, p.label, p.key)
    shift = torch.arange(len(p.label))[:, None] - 200.0
    shifted = Predictions(p.logits + shift, p.label, p.key)
    assert figures(shifted, teacher) == pytest.approx(figures(p, teacher), rel=1e-12)


def test_neither_the_order_of_examples_nor_the_names_of_classes_count():
    g = torch.Generator().manual_seed(0)
    p, t = torch.randn(2, 400, 7, generator=g)  # no ties: of equal logits the first class is chosen
    label = torch.randint(7, (400,), generator=g)
    rows, classes = torch.randperm(400, generator=g), torch.randperm(7, generator=g)
    key, renamed = torch.arange(400), classes.argsort()[label]
    expected = figures(Predictions(p, label, key), Predictions(t, label, key))
    shuffled = (Predictions(z[rows][:, classes], renamed[rows], key[rows]) for z in (p, t))
    assert figures(*shuffled) == pytest.approx(expected, rel=1e-12)


def test_a_network_is_at_no_distance_from_itself():
    found = figures(make(), make())
    assert (found["agreement"], found["kl_teacher"]) == (1.0, 0.0)


def test_the_kl_is_from_the_teacher_to_the_network():
    even, skewed = of([[0.0, 0.0]], [0]), of([[math.log(3), 0.0]], [0])
    teacher_even = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    teacher_skewed = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert figures(skewed, even)["kl_teacher"] == pytest.approx(teacher_even, rel=1e-6)
    assert figures(even, skewed)["kl_teacher"] == pytest.approx(teacher_skewed, rel=1e-6)


def test_a_certain_mistake_has_a_large_but_finite_nll():
    assert figures(of([[1e30, 0.0]], [1]))["nll"] == pytest.approx(1e30)


@pytest.mark.parametrize(("label", "accuracy", "errors"), [(0, 1.0, 0), (1, 0.0, 1)])
def test_a_single_example(label, accuracy, errors):
    found = figures(of([[math.log(3), 0.0]], [label]))
    assert (found["accuracy"], found["errors"], found["count"]) == (accuracy, errors, 1)
    assert found["ece"] == pytest.approx(abs(accuracy - 0.75), rel=1e-6)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    right_at_half, wrong_above = [0.0, 0.0], [math.log(3), 0.0]
    p = of([right_at_half, wrong_above], [0, 1])  # 0.5 and 0.75: in one bin their gaps would offset each other
    assert expected_calibration_error(p, bins=2) == pytest.approx((0.5 + 0.75) / 2, rel=1e-6)
    assert expected_calibration_error(p, bins=1) == pytest.approx((0.75 - 0.5) / 2, rel=1e-6)


@pytest.mark.parametrize("classes", [3, 5, 15])
def test_an_edge_of_fifteen_bins_is_hit_exactly(classes):
    """1/3, 1/5 and 1/15 are edges, and no binary fractions."""
    slightly_above = [0.0] * (classes - 1) + [0.125]
    p = of([[0.0] * classes, slightly_above], [0, 0])
    high = math.exp(0.125) / (math.exp(0.125) + classes - 1)
    assert expected_calibration_error(p) == pytest.approx((1 - 1 / classes + high) / 2, rel=1e-9)


def test_a_confidence_of_one_shares_the_last_bin():
    p = of([[1000.0, 0.0], [math.log(0.97 / 0.03), 0.0]], [1, 0])  # 1 and wrong; 0.97 and right
    assert expected_calibration_error(p) == pytest.approx(0.97 / 2, rel=1e-6)


def test_confusion_has_the_truth_in_rows():
    p = of([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [0, 0, 2])
    assert confusion(p).tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]
    assert confusion(p).dtype == np.int64


def test_a_teacher_of_other_examples_is_refused():
    p = of([[0.0, 1.0]] * 3, [0, 1, 0], [5, 6, 7])
    with pytest.raises(TutelageError, match=r"at index 1 the teacher's key is 9, the network's 6"):
        figures(p, of([[0.0, 1.0]] * 3, [0, 1, 0], [5, 9, 7]))
    with pytest.raises(TutelageError, match=r"\[2, 2\], the network \[3, 2\]"):
        figures(p, of([[0.0, 1.0]] * 2, [0, 1], [5, 6]))


def test_a_teacher_of_other_classes_is_refused():
    with pytest.raises(TutelageError, match=r"\[1, 3\], the network \[1, 2\]"):
        figures(of([[0.0, 1.0]], [0]), of([[0.0, 1.0, 2.0]], [0]))


def test_no_bins_are_refused():
    with pytest.raises(TutelageError, match="bins must be at least 1, found 0"):
        expected_calibration_error(make(), bins=0)
