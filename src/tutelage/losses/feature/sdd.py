"""Scale decoupled distillation (Wei et al. 2024)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, check_pair, pool_to
from tutelage.losses.logits import column
from tutelage.losses.precision import in_float32


class SDD(nn.Module):
    """Applies a loss of logits to every part of the image, by the classifiers on pooled parts of the last map.

    ``mean over cells and rows of w · loss(W_s f_s + b_s, W_t f_t + b_t)``. The last maps are average-pooled to n × n
    cells for each n of ``scales``, and each network's own classifier makes logits of each cell. w is 2 where the
    teacher is right on the whole image and wrong on the cell, or the other way round, else 1. The whole image is the
    cell of scale 1.

    Args:
        loss: of logits [1, C] ×2 and, if ``labelled``, label [1]; called row by row through ``torch.vmap``.
        scales: numbers of cells a side; the first is 1.
        labelled: whether ``loss`` takes the label.

    Shape:
        student [B, C_s, H, W], teacher [B, C_t, H', W']: last maps before the pooling; student_weight [K, C_s] and
        student_bias [K], teacher_weight [K, C_t] and teacher_bias [K] of the classifiers; label [B]. A scalar.

    Raises:
        TutelageError: the scales do not begin with 1, or a map is smaller than a scale.

    Published weight: cross-entropy and the loss at their own weights, scales 1, 2, 4 for unlike pairs and 1, 2 for
    alike ones; with :class:`~tutelage.losses.logit.dkd.DKD` a warm-up of 20 epochs.

    Wei et al., "Scale Decoupled Distillation", 2024, arXiv:2403.13512.
    """

    over_classes = True

    def __init__(self, loss: nn.Module, scales: Sequence[int] = (1, 2), labelled: bool = False):
        super().__init__()
        if not scales or scales[0] != 1 or not all(isinstance(n, int) and n >= 1 for n in scales):
            raise TutelageError(
                f"SDD.scales: expected integers that begin with 1, the whole image; found {list(scales)}"
            )
        self.loss, self.scales, self.labelled = loss, tuple(scales), labelled

    @in_float32
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        label: Tensor,
        student_weight: Tensor,
        teacher_weight: Tensor,
        student_bias: Tensor | None = None,
        teacher_bias: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss, a scalar."""
        check_pair(student, teacher, "SDD", (MAPS,))
        ours = self._logits(student, student_weight, student_bias)
        theirs = self._logits(teacher, teacher_weight, teacher_bias)
        right = theirs.argmax(2) == column(label, theirs[0], "SDD")[:, 0]  # [cells, B]
        weight = 1 + (right != right[0]).to(ours.dtype)
        labels = label.expand(len(ours), -1)
        rows = torch.vmap(torch.vmap(self._of_row))(ours, theirs, labels)
        return (weight * rows).mean()

    def _of_row(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        named = {"student": student[None], "teacher": teacher[None]}
        result: Tensor = self.loss(**named, **({"label": label[None]} if self.labelled else {}))
        return result

    def _logits(self, feature: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Returns the logits of all cells, [cells, B, K]."""
        if min(feature.shape[2:]) < max(self.scales):
            raise TutelageError(
                f"SDD: a map of {list(feature.shape[2:])} has no {max(self.scales)} cells a side; "
                f"scales={[n for n in self.scales if n <= min(feature.shape[2:])]}"
            )
        cells = torch.cat([pool_to(feature, (n, n)).flatten(2) for n in self.scales], 2)
        return F.linear(cells.permute(2, 0, 1), weight, bias)
