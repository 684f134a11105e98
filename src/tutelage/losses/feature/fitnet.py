"""Hints (Romero et al. 2015)."""

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.losses.feature.adapt import (
    MAPS,
    TOKENS,
    VECTORS,
    Lazy,
    check_pair,
    connector,
    match_size,
    pointwise,
    width,
)
from tutelage.losses.precision import check_same_shape, in_float32


class FitNet(Lazy):
    """Regresses the teacher's feature from the student's: mean squared error after a learned regressor.

    ``mean (r(f_s) − f_t)²`` over all elements. ``r`` maps the student's channels to the teacher's: a 1×1 convolution
    for maps, a linear layer for tokens and vectors. Maps of different sizes are first pooled by the size rule of
    :mod:`tutelage.losses.feature.adapt` (RepDistiller: a strided or transposed convolution). The paper trains the
    layers up to the hint first, then the whole network on soft targets; here, as in RepDistiller, both at once.

    Args:
        rectify: whether ``r`` is a 1×1 convolution, batch normalisation and ReLU, as in RepDistiller; for maps and
            vectors that are outputs of a ReLU.

    Shape:
        student [B, C, H, W], [B, N, D] or [B, D]; teacher of the same kind, batch and number of tokens. A scalar.

    Published weight: 100 with ``rectify`` (RepDistiller, mdistiller), cross-entropy at 1.

    Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, arXiv:1412.6550.
    """

    regressor: nn.Module

    def __init__(self, rectify: bool = False):
        super().__init__()
        self.rectify = rectify
        self.outline()

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Makes the regressor."""
        if self.rectify:
            self.regressor = connector(student, teacher).append(nn.ReLU())
        else:
            self.regressor = pointwise(student.ndim, width(student), width(teacher))

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the hint loss, a scalar."""
        check_pair(student, teacher, "FitNet", (MAPS, VECTORS) if self.rectify else (MAPS, TOKENS, VECTORS))
        self.build_once(student, teacher)
        student, teacher = match_size(student, teacher)
        predicted = self.regressor(student)
        check_same_shape(predicted, teacher, "FitNet after its regressor")
        return F.mse_loss(predicted, teacher)
