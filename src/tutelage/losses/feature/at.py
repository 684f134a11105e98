"""Attention transfer (Zagoruyko & Komodakis 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.losses.feature.adapt import MAPS, TOKENS, Stages, match_size, stage_pairs
from tutelage.losses.precision import in_float32


class AT(nn.Module):
    """Matches the spatial attention maps of student and teacher.

    ``Σ_stages mean (â_s − â_t)²`` over the batch and the positions, ``â = a / ‖a‖₂`` over the positions of an example,
    ``a = mean_c f²``. The numbers of channels may differ; maps of different sizes are pooled by the size rule of
    :mod:`tutelage.losses.feature.adapt`.

    Shape:
        student and teacher: [B, C, H, W] or, with equal N, [B, N, D], or a list of such stages. A scalar.

    Published weight: 1000 (RepDistiller and mdistiller, three stages), cross-entropy at 1.

    Zagoruyko & Komodakis, "Paying More Attention to Attention", 2017, arXiv:1612.03928.
    """

    @in_float32
    def forward(self, student: Stages, teacher: Stages) -> Tensor:
        """Returns the attention loss summed over the stages, a scalar."""
        pairs = [match_size(*pair) for pair in stage_pairs(student, teacher, "AT", (MAPS, TOKENS))]
        return torch.stack([F.mse_loss(_attention(s), _attention(t)) for s, t in pairs]).sum()


def _attention(feature: Tensor) -> Tensor:
    """Returns the attention maps [B, positions], of unit length."""
    return F.normalize(feature.square().mean(1 if feature.ndim == MAPS else -1).flatten(1))
