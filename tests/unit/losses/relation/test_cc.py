import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.losses import oracles_relation as oracle

from tutelage.losses.relation.cc import CC


def test_by_hand():
    """Off the diagonal K is e^(−0.8)·2.12 against e^(−0.8): two of the four entries differ."""
    student, teacher = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert CC(dim=None)(student, teacher).item() == pytest.approx((math.exp(-0.8) * 1.12) ** 2 / 2, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(gamma=st.floats(0.01, 3), order=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_every_gamma_and_order_equals_the_oracle(gamma: float, order: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(5, w, generator=generator, dtype=torch.float64) for w in (3, 4))
    loss = CC(dim=None, gamma=gamma, order=order)
    expected = oracle.cc(student.tolist(), teacher.tolist(), loss.gamma.item(), order)
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_high_orders_are_the_gaussian():
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(6, 4, dtype=torch.float64))
    gaussian = torch.exp(-0.4 * torch.cdist(rows, rows).square())
    errors = [(CC(dim=None, order=p).double().kernel(rows) - gaussian).abs().max().item() for p in (1, 2, 4, 12)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6  # gamma is a float32


def test_with_embeddings_the_kernel_sees_them():
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    loss = CC(dim=6).double()
    value = loss(student, teacher)
    s, t = loss.student_embedding.linear, loss.teacher_embedding.linear
    assert (s.in_features, t.in_features, s.out_features) == (3, 4, 6)
    seen = student @ s.weight.T + s.bias, teacher @ t.weight.T + t.bias
    expected = oracle.cc(*(x.tolist() for x in seen), gamma=loss.gamma.item())
    assert value.item() == pytest.approx(expected, rel=1e-6)
    value.backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_embeddings_can_cheat_and_no_embeddings_cannot():
    """The docstring's warning: one point for all examples makes any two signals equal."""
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    loss = CC(dim=6)
    assert loss(student, teacher).item() > 1e-4
    for layer in (loss.student_embedding.linear, loss.teacher_embedding.linear):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.ones_(layer.bias)
    assert loss(student, teacher).item() == 0
    assert list(CC(dim=None).parameters()) == []


def test_state_loads_into_a_module_without_shapes():
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    loss, other = CC(dim=6), CC(dim=6)
    value = loss(student, teacher)
    other.load_state_dict(loss.state_dict())
    assert other(student, teacher).item() == value.item()
