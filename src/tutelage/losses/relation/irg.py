"""Instance relationship graphs (Liu et al. 2019)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tutelage.losses.base import Loss
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.gkd import stage_rows
from tutelage.losses.relation.rkd import distances


class IRG(Loss):
    """Matches the distances between a batch's examples to the teacher's, and how they change from stage to stage.

    ``Σ_stages ½/B Σ_ij (E^s − E^t)²_ij + Σ_l ½/B Σ_ij (ΔE^s_l − ΔE^t_l)²_ij``, E [B, B] the squared Euclidean distances
    of the flattened signals divided by the largest one of the batch, ΔE_l = E_{l+1} − E_l of consecutive stages (the
    edge transformation; with one stage there is none). ½/B is Caffe's Euclidean loss. The authors' changes of each
    example's own features, which need equal widths, are not included, nor is their loss on logits, which is
    ``loss=logit_mse`` beside this one.
    Invariant to a rotation, shift or rescaling of either signal and to the order of the batch; 0 at B ≤ 2.

    Under DDP each rank compares the examples of its own slice of the batch only, and divides by that slice's largest
    distance.

    Shape:
        student [B, …], teacher [B, …], of any sizes after B, or lists of such stages. Returns a scalar.

    Published weight: 0.005 (CIFAR-10), with cross-entropy and the loss on logits at 1.

    Liu et al., "Knowledge Distillation via Instance Relationship Graph", 2019, CVPR.
    """

    least_rows = 3  # two examples have the same distances in all networks

    @in_float32
    def forward(self, student: Tensor | Sequence[Tensor], teacher: Tensor | Sequence[Tensor]) -> Tensor:
        """Returns the sum over stages and over changes between them: a scalar."""
        found = [(_edges(s), _edges(t)) for s, t in stage_rows(student, teacher, "IRG")]
        apart = [own - theirs for own, theirs in found]
        changes = [later - before for before, later in pairwise(apart)]
        return torch.stack([x.square().sum() / (2 * len(x)) for x in (*apart, *changes)]).sum()


def _edges(rows: Tensor) -> Tensor:
    square = distances(rows).square()
    most = square.amax()
    return square / (most + (most == 0))
