"""Knowledge review (Chen et al. 2021)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, VECTORS, Lazy, Norm2d, Pairs, pool_to, stage_pairs, width
from tutelage.losses.precision import check_same_shape, in_float32

LEVELS = (4, 2, 1)  # sides of the pooled maps of the hierarchical context loss


class ReviewKD(Lazy):
    """Predicts each stage of the teacher from the same and all deeper stages of the student.

    From the deepest stage up, a fusion (:class:`Fusion`) combines the student's stage with the deeper ones and predicts
    the teacher's map; the loss is ``Σ_stages HCL(predicted, t)`` (:func:`context_loss`). A fusion has
    ``min(512, width of the student's deepest stage)`` inner channels. Maps are resized to the teacher's size by nearest
    neighbour inside the fusion, as published, not by the size rule.

    Args:
        stages: the greatest number of pairs of stages.

    Shape:
        student and teacher: lists of the same length, from the shallowest to the deepest stage, of maps
        [B, C_i, H_i, W_i] or vectors [B, D] (the pooled feature, as 1×1 maps). A scalar.

    Raises:
        TutelageError: the lists do not match; names the shapes.

    Published weight, cross-entropy at 1: for CIFAR-100 by pair, 5 for most, 8 (res32x4 → ShuffleNetV2), 1 (res110
    → res32), 0.6 (res56 → res20), ramped up from 0 over 20 epochs; for ImageNet 1, over the first epoch. The ramp is
    the term's ``schedule``. Published inputs: the student's stages after their ReLU, the teacher's before it, and the
    pooled last feature of both.

    Chen et al., "Distilling Knowledge via Knowledge Review", 2021, arXiv:2104.09044.
    """

    least_rows = 2  # the pooled feature has one value per channel and example; a single one has no variance
    fusions: nn.ModuleList

    def __init__(self, stages: int = 5):
        super().__init__()
        self.outline(stages)

    def build(self, pairs: Pairs) -> None:
        """Makes a fusion for each stage, the shallowest first."""
        middle = min(512, width(pairs[-1][0]))
        deepest = len(pairs) - 1
        self.fusions = nn.ModuleList(
            Fusion(width(s), middle, width(t), fuse=i < deepest) for i, (s, t) in enumerate(pairs)
        )

    @in_float32
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Returns the context loss summed over the stages, a scalar."""
        if isinstance(student, Tensor) or isinstance(teacher, Tensor):
            raise TutelageError("ReviewKD takes lists of stages; found a tensor")
        pairs = [(_as_map(s), _as_map(t)) for s, t in stage_pairs(student, teacher, "ReviewKD", (MAPS, VECTORS))]
        self.build_once(pairs)
        losses, deeper = [], None
        for fusion, (s, t) in reversed(list(zip(self.fusions, pairs, strict=True))):
            predicted, deeper = fusion(s, deeper, t.shape[-2:])
            losses.append(context_loss(predicted, t))
        return torch.stack(losses).sum()


class Fusion(nn.Module):
    """Attention-based fusion of a stage with the deeper ones.

    ``x = conv₁(stage)`` (1×1, batch normalisation), ``y`` the deeper residual resized to x,
    ``(a, b) = σ(conv([x, y]))`` two maps, ``r = a·x + b·y`` resized to the teacher, ``predicted = conv₂(r)`` (3×3,
    batch normalisation). The deepest stage has no y: ``r = x``.

    Args:
        width_in: channels of the student's stage.
        middle: channels of x, y and r.
        width_out: channels of the teacher's stage.
        fuse: whether there is a deeper stage.

    Shape:
        stage [B, width_in, H, W], deeper residual [B, middle, H', W'] or None.
    """

    def __init__(self, width_in: int, middle: int, width_out: int, fuse: bool):
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(width_in, middle, 1, bias=False), Norm2d(middle))
        self.leave = nn.Sequential(nn.Conv2d(middle, width_out, 3, padding=1, bias=False), Norm2d(width_out))
        self.attend = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) if fuse else None
        for layer in (self.enter[0], self.leave[0]):
            nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type]

    def forward(self, stage: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Returns the prediction of the teacher's map, of ``size``, and the residual for the next shallower stage."""
        x = self.enter(stage)
        if self.attend is not None and deeper is not None:
            y = _resize(deeper, x.shape[-2:])
            a, b = self.attend(torch.cat([x, y], 1)).split(1, 1)
            x = a * x + b * y
        residual = _resize(x, size)
        return self.leave(residual), residual


def context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Computes the hierarchical context loss: the mean squared error of the maps and of pooled versions of them.

    ``Σ_l c_l MSE(pool_l(s), pool_l(t)) / Σ_l c_l`` over l = the full map, then those of 4×4, 2×2 and 1×1 that are
    smaller than the map; c_l = 1 for the full map, then half of the previous one.

    Shape:
        student and teacher [B, C, H, W]. A scalar.
    """
    check_same_shape(student, teacher, "ReviewKD after its fusion")
    losses = [F.mse_loss(student, teacher)]
    sizes = [(side, side) for side in LEVELS if side < min(teacher.shape[-2:])]
    losses += [F.mse_loss(pool_to(student, size), pool_to(teacher, size)) for size in sizes]
    shares = [0.5**i for i in range(len(losses))]
    return torch.stack([share * loss for share, loss in zip(shares, losses, strict=True)]).sum() / sum(shares)


def _as_map(feature: Tensor) -> Tensor:
    return feature if feature.ndim == MAPS else feature[:, :, None, None]


def _resize(feature: Tensor, size: torch.Size) -> Tensor:
    if feature.shape[-2:] == (1, 1):  # the pooled feature: the same value at all positions
        return feature.expand(-1, -1, *size)
    return feature if feature.shape[-2:] == size else F.interpolate(feature, size=tuple(size), mode="nearest")
