"""Knowledge distillation by singular value decomposition (Lee et al. 2018)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, TOKENS, stage_pairs, width
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.mhgd import principal


class KDSVD(nn.Module):
    """Matches how the main channel directions of consecutive stages relate to each other.

    ``Σ_l Σ_{b,i,j} (R^s_l − R^t_l)²_bij / B`` over consecutive stages l − 1, l, with the radial basis function
    ``R_l,bij = exp(−(v_l,bi − v_{l−1},bj)² / 8)``. v_l [B, C_l] is the first right-singular vector of each example's
    map as a matrix [positions, C_l]; of the student that of its first four which is nearest to the teacher's, with its
    sign. The sizes of the maps may differ. Gradients of singular vectors leave out pairs of equal singular values.

    With one vector, as published, the teacher's singular values, by which the authors weigh several, are 1. The sign of
    the teacher's vectors, which a decomposition leaves open, is fixed by their largest number. The authors clip the
    gradient to that of the labels' loss, parameter by parameter; here the weight takes its place.

    Shape:
        student and teacher: lists of two or more maps [B, C_l, H, W] or tokens [B, N, C_l] of equal C_l. A scalar.

    Raises:
        TutelageError: there is one stage, or widths differ.

    Published weight: 1 (mdistiller), without the authors' clipping.

    Lee, Kim and Song, "Self-supervised Knowledge Distillation Using Singular Value Decomposition", 2018,
    arXiv:1807.06819; the formula is that of RepDistiller and mdistiller.
    """

    @in_float32
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Returns the distance of the relations, a scalar."""
        pairs = stage_pairs(student, teacher, "KDSVD", (MAPS, TOKENS))
        widths = [[width(x) for x in stages] for stages in zip(*pairs, strict=True)]
        if len(pairs) < 2 or widths[0] != widths[1]:
            raise TutelageError(
                f"KDSVD takes two or more stages of equal widths; found student {widths[0]}, teacher {widths[1]}"
            )
        theirs = [principal(t) for _, t in pairs]
        own = [principal(s, near) for (s, _), near in zip(pairs, theirs, strict=True)]
        related = zip(pairwise(own), pairwise(theirs), strict=True)
        distances = [(_relation(*s) - _relation(*t)).square().sum() for s, t in related]
        return torch.stack(distances).sum() / len(own[0])


def _relation(front: Tensor, back: Tensor) -> Tensor:
    return (-(back[:, :, None] - front[:, None]).square() / 8).exp()  # [B, C_l, C_{l−1}]
