"""Neuron selectivity transfer (Huang & Wang 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.losses.feature.adapt import MAPS, TOKENS, Stages, match_size, stage_pairs
from tutelage.losses.precision import in_float32


class NST(nn.Module):
    """Matches the distribution of the channels' activation patterns to the teacher's.

    Squared maximum mean discrepancy with the kernel ``k(x, y) = (xᵀy)²`` between the channels' maps, each of unit
    length over its positions: ``Σ_stages mean_B [mean k(s, s') + mean k(t, t') − 2 mean k(s, t)]``, each mean over all
    pairs of channels. It equals ``‖SᵀS/C_s − TᵀT/C_t‖²_F`` for S [C_s, positions] and T [C_t, positions], and is
    computed from the smaller Gram matrices, between positions or between channels. The widths may differ; maps of
    different sizes are pooled by the size rule of :mod:`tutelage.losses.feature.adapt`.

    Shape:
        student and teacher: [B, C, H, W] or, with equal N, [B, N, D], or a list of such stages. A scalar.

    Published weight: 50 (RepDistiller and mdistiller, three stages), cross-entropy at 1.

    Huang & Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", 2017, arXiv:1707.01219.
    """

    @in_float32
    def forward(self, student: Stages, teacher: Stages) -> Tensor:
        """Returns the squared discrepancy summed over the stages, a scalar."""
        pairs = [match_size(*pair) for pair in stage_pairs(student, teacher, "NST", (MAPS, TOKENS))]
        return torch.stack([_discrepancy(_patterns(s), _patterns(t)) for s, t in pairs]).sum()


def _patterns(feature: Tensor) -> Tensor:
    """Returns [B, channels, positions], each row of unit length."""
    return F.normalize(feature.flatten(2) if feature.ndim == MAPS else feature.mT, dim=2)


def _discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    channels, places = max(student.shape[1], teacher.shape[1]), student.shape[2]
    if places <= channels:
        gap = student.mT @ student / student.shape[1] - teacher.mT @ teacher / teacher.shape[1]
        return gap.square().sum((1, 2)).mean()
    return _kernel(student, student) + _kernel(teacher, teacher) - 2 * _kernel(student, teacher)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Returns the mean of (xᵀy)² over the batch and all pairs of channels."""
    return (x @ y.mT).square().mean()
