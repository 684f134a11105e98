"""Variational information distillation (Ahn et al. 2019)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import (
    MAPS,
    TOKENS,
    VECTORS,
    Lazy,
    Pairs,
    Stages,
    match_size,
    pointwise,
    stage_pairs,
    width,
)
from tutelage.losses.precision import check_same_shape, in_float32

FLOOR = 1e-5  # of the variance


class VID(Lazy):
    """Predicts the teacher's feature by a Gaussian whose variance is learned for each channel.

    ``Σ_stages mean ½[(μ(f_s) − f_t)²/σ² + log σ²]`` over all elements, ``σ² = softplus(ρ) + 1e-5`` per channel of the
    teacher, ρ learned. μ is three 1×1 convolutions (linear layers for tokens and vectors) of the teacher's width,
    without bias, ReLU between them. Up to a constant it is an upper bound of the negative mutual information, so it can
    be negative. Sizes: the size rule of :mod:`tutelage.losses.feature.adapt`.

    Args:
        variance: initial σ².
        stages: the greatest number of pairs of stages.

    Shape:
        student [B, C, H, W], [B, N, D] or [B, D], or a list of stages; teacher the same but for C, H, W, D. A scalar.

    Raises:
        TutelageError: the variance is not above 1e-5.

    Published weight: 1 (RepDistiller and mdistiller, three stages), cross-entropy at 1. mdistiller does not pass ρ to
    its optimizer, so its σ² stays 5.

    Ahn et al., "Variational Information Distillation for Knowledge Transfer", 2019, arXiv:1904.05835.
    """

    regressors: nn.ModuleList
    rhos: nn.ParameterList

    def __init__(self, variance: float = 5.0, stages: int = 5):
        super().__init__()
        if not FLOOR < variance < math.inf:
            raise TutelageError(f"VID's variance must be finite and above {FLOOR}; found {variance}")
        self.rho = math.log(math.expm1(variance - FLOOR)) if variance < 30 else variance - FLOOR  # softplus⁻¹
        self.outline(stages)

    def build(self, pairs: Pairs) -> None:
        """Makes a regressor and a vector ρ for each stage."""
        self.regressors = nn.ModuleList(_regressor(s.ndim, width(s), width(t)) for s, t in pairs)
        self.rhos = nn.ParameterList(torch.full((width(t),), self.rho) for _, t in pairs)

    @in_float32
    def forward(self, student: Stages, teacher: Stages) -> Tensor:
        """Returns the negative log-likelihood (without its constant) summed over the stages, a scalar."""
        pairs = stage_pairs(student, teacher, "VID", (MAPS, TOKENS, VECTORS))
        self.build_once(pairs)
        stages = zip(self.regressors, self.rhos, pairs, strict=True)
        return torch.stack([_loss(regressor, rho, *match_size(*pair)) for regressor, rho, pair in stages]).sum()


def _regressor(ndim: int, width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        pointwise(ndim, width_in, width_out, bias=False),
        nn.ReLU(),
        pointwise(ndim, width_out, width_out, bias=False),
        nn.ReLU(),
        pointwise(ndim, width_out, width_out, bias=False),
    )


def _loss(regressor: nn.Module, rho: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    mean = regressor(student)
    check_same_shape(mean, teacher, "VID after its regressor")
    variance = F.softplus(rho) + FLOOR
    if teacher.ndim == MAPS:
        variance = variance[:, None, None]
    return 0.5 * ((mean - teacher).square() / variance + variance.log()).mean()
