"""Co-distillation with stale peers (Anil et al. 2018)."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.logits import all_members, log_softmax
from tutelage.losses.precision import in_float32


class Codistillation(nn.Module):
    """Draws each of K networks to the mean prediction of stale copies of all the others.

    ``−Σ_i mean_b Σ_c q_ic log p_ic``, p_i = softmax(z_i), ``q_i = 1/(K − 1) Σ_{j ≠ i} softmax(z̃_j)``, z̃_j the logits of
    a copy of network j that is some steps old (:class:`tutelage.sources.stale.Stale`); T = 1. A cross-entropy: of equal
    certain networks 0, else at least the entropy of q.

    Shape:
        student [B, C]; peers [B, K − 1, C]; stale [B, K, C], the student's copy first. Returns a scalar.

    Raises:
        TutelageError: the shapes do not match.

    Published weight: 1 beside cross-entropy at 1, after a burn-in without it. In the paper each network also has a
    share of the examples to itself; here all learn from the same batches.

    Anil et al., "Large Scale Distributed Neural Network Training through Online Distillation", 2018, arXiv:1804.03235.
    """

    over_classes = True

    @in_float32
    def forward(self, student: Tensor, peers: Tensor, stale: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        members = torch.stack(all_members(student, peers, "Codistillation"), 1)
        if stale.shape != members.shape:
            raise TutelageError(
                f"Codistillation: expected logits of a copy of each network, {list(members.shape)}; found "
                f"{list(stale.shape)}"
            )
        probabilities = log_softmax(stale.detach()).exp()
        others = (probabilities.sum(1, keepdim=True) - probabilities) / (members.shape[1] - 1)
        return -(others * log_softmax(members)).sum((1, 2)).mean()
