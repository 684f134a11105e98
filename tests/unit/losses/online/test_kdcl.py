"""Collaborative learning: the target of each rule, written from its definition, and the gradient to every network."""

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.errors import TutelageError
from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.losses.online.kdcl import KDCL, error_products, least_cross_entropy, least_error
from tutelage.losses.online.simplex import least_on_simplex, onto_simplex

RULES = ("mean", "naive", "linear", "minlogit", "general")


def logits(networks: int, rows: int = 6, classes: int = 4, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(networks)
    return scale * torch.randn(rows, networks, classes, generator=generator, dtype=torch.float64)


LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def loss_of(rule: str, z: Tensor, temperature: float = 2.0) -> Tensor:
    return KDCL(rule, temperature, peers=z.shape[1] - 1).double()(z[:, 0], z[:, 1:], LABELS)


def cross_entropy(row: list[float], label: int) -> float:
    return math.log(sum(math.exp(x) for x in row)) - row[label]


def target(rule: str, own: list[list[float]], label: int) -> list[float]:
    """Of one example, from the logits of all networks; of ``linear`` by trying a thousand weights of two networks."""
    classes = range(len(own[0]))
    if rule == "naive":
        return min(own, key=lambda row: cross_entropy(row, label))
    if rule == "minlogit":
        return [min(row[c] - row[label] for row in own) for c in classes]
    if rule == "linear":
        mixed = ([a / 1000 * own[0][c] + (1 - a / 1000) * own[1][c] for c in classes] for a in range(1001))
        return min(mixed, key=lambda row: cross_entropy(row, label))
    return [sum(row[c] for row in own) / len(own) for c in classes]  # general: in the first epoch


def oracle(rule: str, z: Tensor, temperature: float) -> float:
    total = 0.0
    for own, label in zip(z.tolist(), LABELS.tolist(), strict=True):
        q = [math.exp(x / temperature) for x in target(rule, own, label)]
        for row in own:
            p = [math.exp(x / temperature) for x in row]
            total += sum(b / sum(q) * math.log(b / sum(q) / (a / sum(p))) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(z)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_equals_plain_sums(rule: str, temperature: float):
    z = logits(2)
    near = 2e-2 if rule == "linear" else 1e-6
    assert loss_of(rule, z, temperature).item() == pytest.approx(oracle(rule, z, temperature), rel=near)
    if rule != "linear":
        z = logits(3)
        assert loss_of(rule, z, temperature).item() == pytest.approx(oracle(rule, z, temperature), rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_each_network_has_the_gradient_of_a_frozen_target(rule: str):
    z = logits(3).requires_grad_()
    found = torch.autograd.grad(loss_of(rule, z), z)[0]
    if rule == "linear":
        assert found.abs().max() > 0
        return
    targets = torch.tensor([target(rule, own, y) for own, y in zip(z.tolist(), LABELS.tolist(), strict=True)])
    for i in range(3):
        own = z.detach()[:, i].requires_grad_()
        alone = torch.autograd.grad(SoftTarget(2.0)(own, targets.double()), own)[0]
        assert torch.allclose(found[:, i], alone, atol=1e-6)


@pytest.mark.parametrize("networks", [2, 4])
def test_the_linear_target_has_at_most_the_least_cross_entropy_of_one_network(networks: int):
    z = logits(networks, scale=5.0)
    found = F.cross_entropy(least_cross_entropy(z, LABELS[:, None]), LABELS, reduction="none")
    each = torch.stack([F.cross_entropy(z[:, i], LABELS, reduction="none") for i in range(networks)], 1)
    assert bool((found <= each.amin(1) + 0.02).all())


def test_general_weighs_by_the_errors_of_the_epoch_before():
    loss, z = KDCL("general", peers=2).double(), logits(3)
    z[:, 0] += 6 * F.one_hot(LABELS, 4)  # the first network is nearly always right
    loss.on_epoch_start(0, 3)
    loss(z[:, 0], z[:, 1:], LABELS)
    assert loss.weights.tolist() == pytest.approx([1 / 3] * 3)
    loss.on_epoch_start(0, 3)  # resumed within the epoch
    assert bool(loss.errors.any())
    saved = copy.deepcopy(loss.state_dict())
    loss.on_epoch_start(1, 3)
    assert loss.weights[0] > 0.9
    assert loss.weights.sum().item() == pytest.approx(1)
    assert not bool(loss.errors.any())
    again = KDCL("general", peers=2).double()
    again.load_state_dict(saved)
    again.on_epoch_start(1, 3)
    assert torch.equal(again.weights, loss.weights)
    loss.eval()(z[:, 0], z[:, 1:], LABELS)
    assert not bool(loss.errors.any())  # only training batches are counted


def test_weights_of_least_error_are_those_in_closed_form_where_these_are_positive():
    matrix = torch.tensor([[2.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 1.5]], dtype=torch.float64)
    closed = torch.linalg.inv(matrix).sum(1) / torch.linalg.inv(matrix).sum()
    assert torch.allclose(least_error(matrix), closed, atol=1e-6)
    better = torch.tensor([[1.0, 1.9], [1.9, 4.0]], dtype=torch.float64)  # in closed form one weight is negative
    assert least_error(better).tolist() == pytest.approx([1, 0], abs=1e-6)


def test_products_of_errors_are_those_of_probabilities_and_labels():
    z = logits(2)
    p, true = z.softmax(2), F.one_hot(LABELS, 4)
    expected = ((p[:, 0] - true) * (p[:, 1] - true)).sum(1)
    assert torch.allclose(error_products(z, LABELS[:, None])[:, 0, 1], expected)


def test_points_are_moved_to_the_nearest_weights():
    found = onto_simplex(torch.tensor([[0.2, 0.8], [3.0, 0.0], [0.5, 0.7], [-1.0, -1.0]]))
    assert torch.allclose(found, torch.tensor([[0.2, 0.8], [1.0, 0.0], [0.4, 0.6], [0.5, 0.5]]))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_few_accelerated_steps_are_the_published_ones(steps: int):
    """Beck & Teboulle's t and y, where the minimum, far from all corners, is not reached."""
    curve, least = torch.tensor([1.0, 0.1, 0.02]), torch.tensor([0.2, 0.3, 0.5])
    x = y = torch.tensor([1.0, 0.0, 0.0])
    t = 1.0
    for _ in range(steps):
        after = onto_simplex((y - curve * (y - least))[None])[0]
        t, before = (1 + math.sqrt(1 + 4 * t * t)) / 2, t
        x, y = after, after + (before - 1) / t * (after - x)
    found = least_on_simplex(lambda w: curve * (w - least), torch.tensor([[1.0, 0.0, 0.0]]), torch.ones(1, 1), steps)
    torch.testing.assert_close(found, x[None])


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_of_two_networks_the_linear_target_is_the_least_of_a_fine_grid(scale: float):
    z = logits(2, 40, 5, scale)
    labels = torch.arange(40) % 5
    z[0, 1] = z[0, 0]  # every weight is the least
    found = F.cross_entropy(least_cross_entropy(z, labels[:, None]), labels, reduction="none")
    shares = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None, None]
    grid = shares * z[:, 0] + (1 - shares) * z[:, 1]
    least = F.cross_entropy(grid.flatten(0, 1), labels.repeat(4001), reduction="none").view(4001, 40).amin(0)
    assert bool((found <= least + 2e-5 * scale**2 + 1e-9).all())


@pytest.mark.parametrize("rule", ["mean", "naive", "linear", "general"])
def test_equal_networks_have_nothing_to_learn(rule: str):
    z = logits(1).expand(-1, 3, -1).clone().requires_grad_()
    value = loss_of(rule, z)
    assert value.item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_half_precision_is_computed_in_single(rule: str):
    z = logits(3).bfloat16()
    loss = KDCL(rule, peers=2)
    found = loss(z[:, 0], z[:, 1:], LABELS)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss_of(rule, z.double()).item(), rel=1e-3)


def test_bad_input_is_refused_with_a_sentence():
    with pytest.raises(TutelageError, match=r"'minlogits'.*did you mean 'minlogit'"):
        KDCL("minlogits")
    with pytest.raises(TutelageError, match=r"KDCL: expected peers' logits \[B, K − 1, C\]"):
        KDCL()(torch.zeros(5, 4), torch.zeros(5, 4), torch.zeros(5, dtype=torch.long))
    with pytest.raises(TutelageError, match=r"KDCL\.peers=1: found the logits of 2"):
        KDCL("general")(torch.zeros(5, 4), torch.zeros(5, 2, 4), torch.zeros(5, dtype=torch.long))
    with pytest.raises(TutelageError, match=r"KDCL\.peers: expected 1 or more"):
        KDCL(peers=0)
