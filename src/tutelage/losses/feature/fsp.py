"""Flow of solution procedure (Yim et al. 2017)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, match_size, stage_pairs
from tutelage.losses.precision import check_same_shape, in_float32


class FSP(nn.Module):
    """Matches the Gram matrices between consecutive stages of student and teacher.

    ``Σ_i mean (G_i(s) − G_i(t))²`` over the batch and the entries of ``G_i = mean_HW f_i f_{i+1}ᵀ``, [C_i, C_{i+1}] of
    consecutive stages. The larger of two consecutive stages is pooled by the size rule of
    :mod:`tutelage.losses.feature.adapt` (the paper: max pooling; RepDistiller: as here). Student and teacher may differ
    in H and W, not in C.

    Shape:
        student and teacher: lists of two or more maps [B, C_i, H_i, W_i], of the same number and C_i. A scalar.

    Raises:
        TutelageError: fewer than two stages, or widths or batch sizes differ; names the shapes.

    Published weight: RepDistiller, like the paper, trains on FSP alone, at 1, then (after 30 epochs) on labels alone;
    the 50 of its example has no effect.

    Yim et al., "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning",
    CVPR 2017.
    """

    @in_float32
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Returns the flow loss summed over consecutive pairs of stages, a scalar."""
        stage_pairs(student, teacher, "FSP", (MAPS,))
        flows = list(zip(_flows(student, "student"), _flows(teacher, "teacher"), strict=True))
        for s, t in flows:
            check_same_shape(s, t, "FSP's matrices between consecutive stages")
        return torch.stack([F.mse_loss(s, t) for s, t in flows]).sum()


def _flows(stages: Sequence[Tensor], whose: str) -> list[Tensor]:
    """Returns a matrix [B, C_i, C_{i+1}] for each pair of consecutive stages."""
    if isinstance(stages, Tensor) or len(stages) < 2 or len({len(stage) for stage in stages}) > 1:
        found = [list(stage.shape) for stage in ([stages] if isinstance(stages, Tensor) else stages)]
        raise TutelageError(f"FSP needs two or more stages of the same batch size; found {whose} {found}")
    matched = [match_size(*pair) for pair in pairwise(stages)]
    return [a.flatten(2) @ b.flatten(2).mT / a.shape[2:].numel() for a, b in matched]
