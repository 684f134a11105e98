"""Deep mutual learning (Zhang et al. 2018)."""

import torch
from torch import Tensor, nn

from tutelage.losses.base import Loss, contract
from tutelage.losses.logit.soft_target import soft_target
from tutelage.losses.logits import all_members, checked_temperature
from tutelage.losses.precision import in_float32


class MutualLearning(Loss):
    """Draws each of K networks to the distributions of all the others.

    ``Σ_i 1/(K − 1) Σ_{j ≠ i} T² · mean_b KL(p_j ‖ p_i)``, p = softmax(z / T), p_j detached: the i-th sum has a gradient
    in network i alone, so that one step of one optimizer is a step of each network on its own loss, all of them with
    the predictions of the same batch. The authors' code updates one after the other, each on another batch.

    Args:
        temperature: T.

    Shape:
        student [B, C]; peers [B, K − 1, C]. Returns a scalar.

    Raises:
        TutelageError: T is not finite or below 1e-3, or the shapes do not match.

    Published weight: 1, with cross-entropy at 1 for each network, T = 1. The authors' code for more than two networks
    does not divide by K − 1; the paper does.

    Zhang et al., "Deep Mutual Learning", 2018, arXiv:1706.00384.
    """

    over_classes = True
    temperature: Tensor

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.register_buffer("temperature", checked_temperature(temperature, "MutualLearning"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, peers: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        members = all_members(student, peers, "MutualLearning")
        pairs = [
            soft_target(learner, teacher.detach(), self.temperature)
            for learner in members
            for teacher in members
            if teacher is not learner
        ]
        return torch.stack(pairs).sum() / (len(members) - 1)


class SumOverPeers(Loss):
    """The sum of a loss of logits and labels over networks that learn together.

    Args:
        loss: of logits [B, …, C] and labels.

    Shape:
        input [B, …, K, C], target as ``loss`` takes it. Returns a scalar.
    """

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss
        own = contract(loss)
        self.least_rows, self.takes_unlabelled = own.least_rows, own.takes_unlabelled
        self.over_classes = own.over_classes

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        return torch.stack([self.loss(logits, target) for logits in input.unbind(-2)]).sum()
