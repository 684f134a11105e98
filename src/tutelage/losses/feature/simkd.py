"""The reused teacher classifier (Chen et al. 2022)."""

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.losses.feature.adapt import MAPS, VECTORS, check_pair, match_size
from tutelage.losses.precision import check_same_shape, in_float32


class SimKD(nn.Module):
    """Matches the student's projected last feature to the teacher's, whose classifier the student uses.

    ``mean (P(f_s) − f_t)²`` over all elements. The projector P and the classifier belong to the student that is
    trained and exported (:class:`tutelage.models.reused.ReusedClassifier`), so this loss has no parameters. Sizes: the
    size rule of :mod:`tutelage.losses.feature.adapt`, which is the published one.

    Shape:
        projected [B, C, H, W] or [B, C]; teacher [B, C, H', W'] or [B, C]. A scalar.

    Raises:
        TutelageError: the shapes do not match; names both.

    Published weight: 1, all other terms at 0 (the authors).

    Chen et al., "Knowledge Distillation with the Reused Teacher Classifier", 2022, arXiv:2203.14001.
    """

    @in_float32
    def forward(self, projected: Tensor, teacher: Tensor) -> Tensor:
        """Returns the distance of the last features, a scalar."""
        check_pair(projected, teacher, "SimKD", (MAPS, VECTORS))
        projected, teacher = match_size(projected, teacher)
        check_same_shape(projected, teacher, "SimKD")
        return F.mse_loss(projected, teacher)
