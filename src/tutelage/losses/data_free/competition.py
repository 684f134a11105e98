"""The term by which Adaptive DeepInversion makes images on which teacher and student differ."""

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.losses.logits import checked_temperature, paired_rows
from tutelage.losses.precision import in_float32


class Competition(nn.Module):
    """Makes a student differ from its teacher: one minus their divergence.

    ``1 − clamp(½ KL(M‖P) + ½ KL(M‖Q), 0, 1)``, ``p = softmax(z_s / T)``, ``q = softmax(z_t / T)``, and P, Q and M the
    probabilities p, q and (p + q)/2 clamped to [0.01, 0.99]; KL(M‖P) is ``mean_b Σ_c M log(M/P)``. It is 1 where they
    agree. This is what the authors' code computes: not the Jensen-Shannon divergence, ½ KL(P‖M) + ½ KL(Q‖M), of the
    paper, and clamped probabilities don't add up to 1. There is no T². Both sides have gradients where they are a
    term's ``inputs``.

    Args:
        temperature: T.

    Shape:
        student, teacher: [B, C]. A scalar.

    Raises:
        TutelageError: the shapes differ, or are not [B, C]; T is below 1e-3.

    Published weight: 0.2 on ImageNet, T = 3.

    Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", 2020, arXiv:1912.08795.
    """

    over_classes = True
    temperature: Tensor

    def __init__(self, temperature: float = 3.0):
        super().__init__()
        self.register_buffer("temperature", checked_temperature(temperature, "Competition"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the term, a scalar."""
        student, teacher = paired_rows(student, teacher, "Competition")
        p, q = ((logits / self.temperature).softmax(1) for logits in (student, teacher))
        low, high, mixed = p.clamp(0.01, 0.99).log(), q.clamp(0.01, 0.99).log(), ((p + q) / 2).clamp(0.01, 0.99)
        divergence = (F.kl_div(low, mixed, reduction="batchmean") + F.kl_div(high, mixed, reduction="batchmean")) / 2
        return 1 - divergence.clamp(0, 1)
