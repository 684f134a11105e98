"""Class attention transfer (Guo et al. 2023)."""

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, check_pair, pool_to, width
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.sp import unit


class CATKD(nn.Module):
    """Matches the class activation maps of student and teacher.

    ``mean (ā_s − ā_t)²`` over the batch, the classes and the r×r positions. ``a = W f`` are the class activation maps
    [K, H, W] of the last feature f and the classifier's weight W (without its bias), average-pooled to r×r;
    ``ā = a / ‖a‖₂`` over the positions of each class, or ``ā = a`` without ``normalize``. H, W and C may differ.

    Args:
        resolution: r.
        normalize: whether maps are scaled to unit length.

    Shape:
        student [B, C_s, H, W], teacher [B, C_t, H', W'], student_weight [K, C_s], teacher_weight [K, C_t]. A scalar.

    Raises:
        TutelageError: a resolution below 1 or above the maps' size; weights of other shapes; names the shapes.

    Published weight (the authors' files, cross-entropy at 1), by pair. CIFAR-100, with ``normalize``: 15 (VGG13 →
    MobileNetV2), 40 (ResNet50 → MobileNetV2) and, at r = 4, 80 (WRN-40-2 → ShuffleNetV1) and 600 (res32x4 →
    ShuffleNetV1, V2); without it: 0.7 (res56 → res20), 1.5 (WRN-40-2 → 40-1), 1.8 (res110 → res32), 4.5 (VGG13 → VGG8),
    12 (WRN-40-2 → 16-2), 15 (res32x4 → res8x4). ImageNet, without it, at r = 4: 0.5 (ResNet34 → 18).

    Guo et al., "Class Attention Transfer Based Knowledge Distillation", 2023, arXiv:2304.12777.
    """

    def __init__(self, resolution: int = 2, normalize: bool = True):
        super().__init__()
        if resolution < 1:
            raise TutelageError(f"CAT-KD's resolution must be at least 1; found {resolution}")
        self.resolution, self.normalize = resolution, normalize

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, student_weight: Tensor, teacher_weight: Tensor) -> Tensor:
        """Returns the distance of the class activation maps, a scalar."""
        check_pair(student, teacher, "CAT-KD", (MAPS,))
        if len(student_weight) != len(teacher_weight):
            shapes = f"student_weight {list(student_weight.shape)}, teacher_weight {list(teacher_weight.shape)}"
            raise TutelageError(f"CAT-KD needs the same number of classes of both; found {shapes}")
        return F.mse_loss(self._maps(student, student_weight), self._maps(teacher, teacher_weight))

    def _maps(self, feature: Tensor, weight: Tensor) -> Tensor:
        """Returns the class activation maps [B, K, r²]; pooling commutes with W and is cheaper first."""
        side = self.resolution
        if weight.ndim != 2 or weight.shape[1] != width(feature) or min(feature.shape[-2:]) < side:
            shapes = f"feature {list(feature.shape)}, classifier weight {list(weight.shape)}"
            raise TutelageError(
                f"CAT-KD needs maps [B, C, H, W] of at least {side}×{side}, weight [K, C]; found {shapes}"
            )
        maps = weight @ pool_to(feature, (side, side)).flatten(2)
        return unit(maps) if self.normalize else maps  # an all-zero map stays zero, with gradient 0
