"""Pair-wise similarity of positions (Liu et al. 2019)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, check_pair, match_size
from tutelage.losses.masks import check_mask, of_map, only
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.sp import unit


class PairWise(nn.Module):
    """Matches the pair-wise cosine similarities of the regions of a map to the teacher's.

    ``mean_b 1/N² Σ_ij (a^s_ij − a^t_ij)²``, ``a_ij = cos(f_i, f_j)`` between the N nodes of a map: its features,
    max-pooled in windows of ``pool`` times the height and the width (0.5: N = 4). The numbers of channels may differ;
    nothing is learned. Maps of different sizes are first pooled by the size rule of
    :mod:`tutelage.losses.feature.adapt`. Gradients also flow through the norms, as in the paper's formula; the authors'
    code detaches them. A zero node has similarity 0 to every other and gets no gradient.

    Masked positions are excluded from the pooling; a node without a valid position is excluded.

    Args:
        pool: the size of a window as a fraction of the map's, from 0 to 1; 0 for no pooling (N = H·W).

    Shape:
        student [B, C_s, H, W], teacher [B, C_t, H', W']; mask [B, H, W] bools, true for valid positions, or of
        k·H and l·W pixels (a position with a valid pixel is valid); it needs equal sizes of maps. A scalar.

    Raises:
        TutelageError: a pool outside [0, 1], or shapes that do not fit.

    Published weight: 1 and pool 0.5 on the last map (the authors' code, Cityscapes), cross-entropy at 1.

    Liu et al., "Structured Knowledge Distillation for Semantic Segmentation", 2019, arXiv:1903.04197.
    """

    def __init__(self, pool: float = 0.5):
        super().__init__()
        if not (isinstance(pool, (int, float)) and 0 <= pool <= 1):
            raise TutelageError(f"PairWise.pool: expected a number in [0, 1], found {pool!r}")
        self.pool = float(pool)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar."""
        check_pair(student, teacher, "PairWise", (MAPS,))
        if mask is not None:
            if student.shape[2:] != teacher.shape[2:]:
                sizes = f"student {list(student.shape[2:])}, teacher {list(teacher.shape[2:])}"
                raise TutelageError(f"PairWise with a mask needs equal sizes; found {sizes}")
            mask = of_map(mask, student.shape[2:]) if mask.ndim == 3 else mask
            check_mask(mask, student.shape[:1] + student.shape[2:], "PairWise")
        student, teacher = match_size(student, teacher)
        valid = None if mask is None else self._pooled(mask[:, None].to(student.dtype)).flatten(1) > 0
        distance = (self._similarity(student, mask, valid) - self._similarity(teacher, mask, valid)).square()
        if valid is None:
            return distance.mean()
        return (distance.sum((1, 2)) / valid.sum(1).clamp(min=1).square()).mean()

    def _similarity(self, feature: Tensor, mask: Tensor | None, valid: Tensor | None) -> Tensor:
        """Returns the similarities [B, N, N], 0 for excluded nodes."""
        if mask is not None:
            feature = feature.where(mask[:, None], -math.inf)
        nodes = unit(only(self._pooled(feature).flatten(2).transpose(1, 2), valid))
        return nodes @ nodes.transpose(1, 2)

    def _pooled(self, feature: Tensor) -> Tensor:
        height, width = (max(1, int(side * self.pool)) for side in feature.shape[2:])
        return F.max_pool2d(feature, (height, width), ceil_mode=True) if height * width > 1 else feature
