"""Losses against labels: class weights, unknown labels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from tutelage.errors import TutelageError
from tutelage.losses.hard import BinaryCrossEntropy, SquaredError, WeightedCrossEntropy, cross_entropy

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, -100])


def logits(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_without_weights_it_is_torchs_own():
    assert type(cross_entropy(0.1)) is torch.nn.CrossEntropyLoss


def test_balanced_weights_are_scikit_learns():
    loss = cross_entropy(class_weights="balanced")
    loss.bind(torch.arange(8), LABELS)
    z, y = logits(7, 3), LABELS[:7]
    weights = compute_class_weight("balanced", classes=np.arange(3), y=y.numpy())
    expected = F.cross_entropy(z, y, torch.from_numpy(weights))
    assert loss(z, y).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_class_without_an_example_has_weight_0():
    loss = cross_entropy(class_weights="balanced")
    loss.bind(torch.arange(4), torch.tensor([0, 0, 2, 2]))
    loss(logits(4, 4), torch.tensor([0, 0, 2, 2]))
    assert loss.class_weights.tolist() == [0.5, 0.0, 0.5, 0.0]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_given_weights_are_torchs(smoothing):
    z, y = logits(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    found = WeightedCrossEntropy([1.0, 2.0, 0.5], smoothing)(z, y)
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    assert found.item() == pytest.approx(F.cross_entropy(z, y, weight, label_smoothing=smoothing).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [("even", "'balanced' or one number a class; found 'even'"), ([0, 0], "not all 0"), ([-1.0, 1.0], "from 0 on")],
)
def test_other_weights_are_refused(weights, message):
    with pytest.raises(TutelageError, match=message):
        WeightedCrossEntropy(weights)


def test_too_few_weights_are_refused():
    with pytest.raises(TutelageError, match="2 numbers for 3 classes"):
        WeightedCrossEntropy([1.0, 2.0])(logits(2, 3), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("loss", "plain"), [(BinaryCrossEntropy(), F.binary_cross_entropy_with_logits), (SquaredError(), F.mse_loss)]
)
def test_unknown_labels_have_no_part_in_value_and_gradient(loss, plain):
    z = logits(5, 4)
    target = (torch.rand(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) > 0.5).double()
    assert loss(z, target).item() == pytest.approx(plain(z, target).item())
    target[0, 1] = target[3] = torch.nan
    known = ~target.isnan()
    value = loss(z, target)
    assert value.item() == pytest.approx(plain(z[known], target[known]).item())
    value.backward()
    assert (z.grad[~known] == 0).all()
    assert (z.grad[known] != 0).all()
    assert loss(z, torch.full_like(target, torch.nan)).item() == 0
    assert torch.autograd.gradcheck(lambda x: loss(x, target), z)


def test_balanced_weights_are_refused_where_labels_come_with_their_samples():
    loss = cross_entropy(class_weights="balanced")
    with pytest.raises(TutelageError, match="class_weights=balanced: the labels come with the samples"):
        loss.bind(torch.arange(3), torch.zeros(3, 1, 1, dtype=torch.long))  # as data=dataset has those of pixels


def test_balanced_weights_of_classes_with_a_single_example_and_with_none():
    loss = cross_entropy(class_weights="balanced")
    loss.bind(torch.arange(6), torch.tensor([0, 0, 0, 1, -100, -100]))
    loss(torch.zeros(2, 3), torch.tensor([0, 1]))
    assert loss.class_weights.tolist() == pytest.approx([4 / 3 / 3, 4 / 3, 0.0])


def test_smoothing_of_a_mixed_label_is_the_published_one():
    """The cross-entropy to (1 − ε)·q + ε/C, of the hard term with ``data.mix``."""
    torch.manual_seed(0)
    z, q = torch.randn(5, 7, dtype=torch.float64), torch.rand(5, 7, dtype=torch.float64).softmax(1)
    wanted = -((0.9 * q + 0.1 / 7) * z.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(cross_entropy(label_smoothing=0.1)(z, q), wanted, rtol=1e-12, atol=0)
