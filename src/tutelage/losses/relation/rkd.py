"""Relational knowledge distillation (Park et al. 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.losses.base import Loss
from tutelage.losses.logits import constant
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.sp import flat_rows


def distances(rows: Tensor) -> Tensor:
    """Returns the Euclidean distances [B, B] of the rows, from differences of coordinates.

    The usual ‖x‖² + ‖y‖² − 2x·y loses all digits if ‖x − y‖ ≪ ‖x‖; here the distance of equal rows is exactly 0, with
    gradient 0.
    """
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def relative(distance: Tensor) -> Tensor:
    """Divides distances by the mean of the non-zero ones; all are zero if all rows are equal."""
    mean = distance.sum() / (distance > 0).sum().clamp(min=1)
    return distance / (mean + (mean == 0))


def cosines(distance: Tensor) -> Tensor:
    """Returns the cosines of the angles at i between j and k, [B, B, B]: (d_ij² + d_ik² − d_jk²) / (2 d_ij d_ik).

    The law of cosines takes B³ numbers and no [B, B, D] differences. Entries where j or k coincides with i are 0.
    """
    square, inverse = distance.square(), 1 / distance.masked_fill(distance == 0, torch.inf)
    return (square[:, :, None] + square[:, None] - square) * (inverse[:, :, None] * (inverse / 2)[:, None])


class RKD(Loss):
    """Matches the distances between two examples and the angles between three to the teacher's.

    ``distance_weight · mean_ij h(d^s_ij − d^t_ij) + angle_weight · mean_ijk h(cos^s_ijk − cos^t_ijk)``, h the smooth
    L1 (½x² for |x| < 1, else |x| − ½), d the Euclidean distance over the mean of the non-zero distances of the batch,
    cos_ijk the cosine of the angle at i between j and k. The means run over all B² and all B³ entries, including the
    degenerate ones (zero in both), as in RepDistiller.

    Invariant to a rotation, shift or rescaling of either signal and to the order of the batch. Equal examples have
    distance 0, no angle and gradient 0 (RepDistiller's is about 10¹² times too large there). The loss is 0 at B ≤ 2.

    Memory: a few [B, B, B] float32 tensors, 1 MB each at B = 64 and 67 MB at B = 256, for any width; on CUDA the
    backward of ``cdist`` also takes one [B, B, D].

    Under DDP each rank compares the examples of its own slice of the batch only, and divides by that slice's mean
    distance.

    Args:
        distance_weight: weight of the distances, ≥ 0.
        angle_weight: weight of the angles, ≥ 0.

    Shape:
        student [B, …], teacher [B, …], of any sizes after B. Returns a scalar.

    Published weights: 25 and 50 inside, the loss at 1 with cross-entropy at 1 (RepDistiller and mdistiller, CIFAR-100).

    Park et al., "Relational Knowledge Distillation", 2019, arXiv:1904.05068.

    Raises:
        TutelageError: a weight is negative or not finite.
    """

    least_rows = 3  # the loss is 0 for fewer
    distance_weight: Tensor
    angle_weight: Tensor

    def __init__(self, distance_weight: float = 25.0, angle_weight: float = 50.0):
        super().__init__()
        for name, value in (("distance_weight", distance_weight), ("angle_weight", angle_weight)):
            self.register_buffer(name, constant(value, f"RKD.{name}", low=0.0), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the weighted sum of the distance and the angle loss: a scalar."""
        student, teacher = (relative(distances(rows)) for rows in flat_rows(student, teacher, "RKD"))
        distance = F.smooth_l1_loss(student, teacher)
        angle = F.smooth_l1_loss(cosines(student), cosines(teacher))
        return self.distance_weight * distance + self.angle_weight * angle
