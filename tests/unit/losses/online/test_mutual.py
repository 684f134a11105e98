"""Deep mutual learning: each network is drawn to the others, and to nothing through their gradients."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.errors import TutelageError
from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.losses.online.mutual import MutualLearning, SumOverPeers


def logits(networks: int, rows: int = 5, classes: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(rows, networks, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def oracle(members: list[list[list[float]]], temperature: float) -> float:
    """By plain sums: members → rows → logits."""

    def softened(row: list[float]) -> list[float]:
        powers = [math.exp(z / temperature) for z in row]
        return [p / sum(powers) for p in powers]

    total = 0.0
    for i, own in enumerate(members):
        for j, other in enumerate(members):
            if i != j:
                for z, t in zip(own, other, strict=True):
                    p, q = softened(z), softened(t)
                    total += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True)) / len(own)
    return temperature**2 * total / (len(members) - 1)


@pytest.mark.parametrize("networks", [2, 3, 4])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_equals_plain_sums(networks: int, temperature: float):
    z = logits(networks)
    found = MutualLearning(temperature)(z[:, 0], z[:, 1:])
    expected = oracle(z.transpose(0, 1).tolist(), temperature)
    assert found.item() == pytest.approx(expected, rel=1e-9)
    single = MutualLearning(temperature)(z[:, 0].float(), z[:, 1:].float())
    assert single.item() == pytest.approx(expected, rel=1e-5)


def test_of_two_each_has_the_gradient_of_soft_targets_from_the_other():
    z = logits(2).requires_grad_()
    found = torch.autograd.grad(MutualLearning()(z[:, 0], z[:, 1:]), z)[0]
    for learner, teacher in ((0, 1), (1, 0)):
        own = z.detach()[:, learner].requires_grad_()
        alone = torch.autograd.grad(SoftTarget(1.0)(own, z.detach()[:, teacher]), own)[0]
        assert torch.allclose(found[:, learner], alone, atol=1e-14)


def test_of_three_a_network_has_the_mean_of_both_gradients():
    z = logits(3).requires_grad_()
    found = torch.autograd.grad(MutualLearning()(z[:, 0], z[:, 1:]), z)[0]
    own = z.detach()[:, 0].requires_grad_()
    both = sum(SoftTarget(1.0)(own, z.detach()[:, other]) for other in (1, 2)) / 2
    assert torch.allclose(found[:, 0], torch.autograd.grad(both, own)[0], atol=1e-14)


def test_equal_networks_have_nothing_to_learn_from_each_other():
    z = logits(1).expand(-1, 3, -1).clone().requires_grad_()
    value = MutualLearning(2.0)(z[:, 0], z[:, 1:])
    assert value.item() == pytest.approx(0, abs=1e-15)
    assert torch.autograd.grad(value, z)[0].abs().max() < 1e-15


def test_half_precision_is_computed_in_single():
    z = logits(3).bfloat16()
    found = MutualLearning()(z[:, 0], z[:, 1:])
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(MutualLearning()(z[:, 0].double(), z[:, 1:].double()).item(), rel=1e-5)


@pytest.mark.parametrize("peers", [(5, 4), (5, 2, 3), (4, 2, 4)])
def test_peers_of_another_shape_are_refused(peers: tuple[int, ...]):
    with pytest.raises(TutelageError, match=r"MutualLearning: expected peers' logits \[B, K − 1, C\]"):
        MutualLearning()(torch.zeros(5, 4), torch.zeros(peers))


def test_labels_are_learned_by_every_peer():
    z, labels = logits(3), torch.tensor([0, 1, 2, 3, 0])
    expected = sum(F.cross_entropy(z[:, i], labels) for i in range(3))
    assert SumOverPeers(nn.CrossEntropyLoss())(z, labels).item() == pytest.approx(expected.item())
    places, tags = torch.stack([z, z], 1), torch.stack([labels, labels], 1)  # [B, L, K, C], as of tokens

    class OfTokens(nn.Module):
        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            return F.cross_entropy(input.flatten(0, 1), target.flatten())

    assert SumOverPeers(OfTokens())(places, tags).item() == pytest.approx(expected.item())
