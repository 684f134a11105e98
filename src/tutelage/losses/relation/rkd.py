"""Relational knowledge distillation (Park et al. 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.losses.base import Loss
from tutelage.losses.logits import constant
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.sp import flat_rows


def distances(rows: Tensor) -> Tensor:
    """Euclidean distances [B, B] from differences of coordinates.

    The usual ‖x‖² + ‖y‖² − 2x·y loses all digits where ‖x − y‖ ≪ ‖x‖; here equal rows are exactly 0 apart, with
    gradient 0.
    """
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def relative(distance: Tensor) -> Tensor:
    """Distances over their mean across the pairs that are not 0 apart; all zero where every row is the same."""
    mean = distance.sum() / (distance > 0).sum().clamp(min=1)
    return distance / (mean + (mean == 0))


def cosines(distance: Tensor) -> Tensor:
    """Cosine of the angle at i between j and k at [i, j, k]: (d_ij² + d_ik² − d_jk²) / (2 d_ij d_ik).

    The law of cosines takes B³ numbers and no [B, B, D] differences. Where j or k coincides with i there is no angle:
    0.
    """
    square, inverse = distance.square(), 1 / distance.masked_fill(distance == 0, torch.inf)
    return (square[:, :, None] + square[:, None] - square) * (inverse[:, :, None] * (inverse / 2)[:, None])


class RKD(Loss):
    """The student keeps the teacher's distances between two examples and angles between three.

    ``distance_weight · mean_ij h(d^s_ij − d^t_ij) + angle_weight · mean_ijk h(cos^s_ijk − cos^t_ijk)``, h the smooth
    L1 (½x² for |x| < 1, else |x| − ½), d the Euclidean distance over its mean across the pairs of the batch that are
    not 0 apart, cos_ijk the cosine of the angle at i between j and k. The means run over all B² and all B³ entries,
    the degenerate ones (zero in both) among them, as in RepDistiller.

    Unchanged by a rotation, shift or rescaling of either signal and by the order of the batch. Equal examples are 0
    apart and have no angle: neither gives a gradient (RepDistiller's is some 10¹² times too large there). One example
    or two have no relation that could differ: the loss is 0 at B ≤ 2.

    Memory: a handful of [B, B, B] float32 tensors, 1 MB each at B = 64 and 67 MB at B = 256, whatever the width; on
    CUDA the backward of ``cdist`` also takes one [B, B, D].

    Under DDP each rank compares the examples of its own slice of the batch only, and divides by that slice's mean
    distance.

    Args:
        distance_weight: weight of the distances, ≥ 0.
        angle_weight: weight of the angles, ≥ 0.

    Shape:
        student [B, …], teacher [B, …], of any sizes behind B. Returns a scalar.

    Published weights: 25 and 50 inside, the whole at 1 next to cross-entropy at 1 (RepDistiller and mdistiller,
    CIFAR-100).

    Relational Knowledge Distillation, arXiv:1904.05068.

    Raises:
        TutelageError: a weight is negative or not finite.
    """

    least_rows = 3  # fewer have no relation that could differ
    distance_weight: Tensor
    angle_weight: Tensor

    def __init__(self, distance_weight: float = 25.0, angle_weight: float = 50.0):
        super().__init__()
        for name, value in (("distance_weight", distance_weight), ("angle_weight", angle_weight)):
            self.register_buffer(name, constant(value, f"RKD.{name}", low=0.0), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The weighted sum of the distance and the angle loss: a scalar."""
        student, teacher = (relative(distances(rows)) for rows in flat_rows(student, teacher, "RKD"))
        distance = F.smooth_l1_loss(student, teacher)
        angle = F.smooth_l1_loss(cosines(student), cosines(teacher))
        return self.distance_weight * distance + self.angle_weight * angle
