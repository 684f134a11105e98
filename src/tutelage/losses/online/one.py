"""Knowledge distillation by an on-the-fly native ensemble (Lan et al. 2018)."""

import torch
from torch import Tensor, nn

from tutelage.losses.logit.soft_target import soft_target
from tutelage.losses.logits import all_members, checked_temperature, paired_rows
from tutelage.losses.precision import in_float32


class ONE(nn.Module):
    """Draws each of K branches of a network to their gated ensemble.

    ``Σ_i T² · mean_b KL(q ‖ p_i)``, p_i = softmax(z_i / T), q = softmax(z_e / T) detached: the gate that makes z_e
    (:class:`tutelage.models.branches.Gate`) learns from the labels alone. The labels' terms stand beside it: the sum
    of cross-entropies of all branches, and that of z_e.

    Args:
        temperature: T.

    Shape:
        student [B, C], the first branch; others [B, K − 1, C]; ensemble [B, C]. Returns a scalar.

    Raises:
        TutelageError: T is not finite or below 1e-3, or the shapes do not match.

    Published weight: 1 beside cross-entropies at 1, T = 3, K = 3, and a factor exp(−5 (1 − e/80)²) over the first 80 of
    300 epochs (the authors' code).

    Lan, Zhu & Gong, "Knowledge Distillation by On-the-Fly Native Ensemble", 2018, arXiv:1806.04606.
    """

    over_classes = True
    temperature: Tensor

    def __init__(self, temperature: float = 3.0):
        super().__init__()
        self.register_buffer("temperature", checked_temperature(temperature, "ONE"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, others: Tensor, ensemble: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        paired_rows(student, ensemble, "ONE")
        target = ensemble.detach()
        each = [
            soft_target(one, target, self.temperature)
            for one in all_members(student, others, "ONE", "branches' logits")
        ]
        return torch.stack(each).sum()
