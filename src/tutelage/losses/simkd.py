"""The reused teacher classifier (Chen et al. 2022)."""

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.adapt import MAPS, VECTORS, Lazy, check_pair, match_size, pool_to, width
from tutelage.losses.precision import check_same_shape, in_float32


class SimKD(Lazy):
    """The student's last feature, projected, should equal the teacher's, whose classifier it will then use.

    ``mean (P(f_s) − f_t)²`` over all elements. For maps P is a bottleneck of convolutions, 1×1, 3×3, 1×1, the inner
    width ``C_t // reduction``, each followed by batch normalisation and ReLU; for vectors it is a linear layer. Sizes:
    the house rule of :mod:`tutelage.losses.adapt`, which is the published one.

    No label and no logit is used, and the student's own classifier is not trained: the student that counts is its
    backbone, P and the teacher's classifier. :meth:`export_head` makes what follows the backbone.

    Args:
        reduction: what the teacher's width is divided by inside the bottleneck.

    Shape:
        student [B, C_s, H, W] or [B, C_s]; teacher [B, C_t, H', W'] or [B, C_t]. A scalar.

    Raises:
        TutelageError: a reduction under 1.

    Published weight: 1, all other terms at 0 (the authors, reduction 2).

    Knowledge Distillation with the Reused Teacher Classifier, arXiv:2203.14001.
    """

    projector: nn.Module
    width: int  # of the teacher
    size: tuple[int, int] | None  # height and width of the projected maps; none for vectors

    def __init__(self, reduction: int = 2):
        super().__init__()
        if reduction < 1:
            raise TutelageError(f"SimKD's reduction must be at least 1; found {reduction}")
        self.reduction = reduction

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Makes the projector."""
        self.width, self.size = width(teacher), None
        if student.ndim != MAPS:
            self.projector = nn.Linear(width(student), width(teacher))
            return
        matched, _ = match_size(student, teacher)
        self.size = matched.shape[2], matched.shape[3]
        inner = max(1, width(teacher) // self.reduction)
        self.projector = nn.Sequential(
            *_block(width(student), inner, 1), *_block(inner, inner, 3), *_block(inner, width(teacher), 1)
        )

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The distance of the last features, a scalar."""
        check_pair(student, teacher, "SimKD", (MAPS, VECTORS))
        self.build_once(student, teacher)
        student, teacher = match_size(student, teacher)
        guess = self.projector(student)
        check_same_shape(guess, teacher, "SimKD after its projector")
        return F.mse_loss(guess, teacher)

    def export_head(self, classifier_weight: Tensor, classifier_bias: Tensor | None = None) -> "ReusedClassifier":
        """The student's head as it is now: a copy, so that neither its mode nor its use touches the training.

        Args:
            classifier_weight: [K, C_t] of the teacher's last linear layer.
            classifier_bias: [K] of the same; absent: none.

        Raises:
            TutelageError: before the first call, or the weight is not of the teacher's width.
        """
        if not self.built:
            raise TutelageError("SimKD has no projector to export before the first call")
        if classifier_weight.shape[1:] != (self.width,):
            found = list(classifier_weight.shape)
            raise TutelageError(f"SimKD needs a classifier_weight of shape [K, {self.width}]; found {found}")
        return ReusedClassifier(copy.deepcopy(self.projector), self.size, classifier_weight, classifier_bias)


class ReusedClassifier(nn.Module):
    """Student's feature → logits: the projector, the average over H and W, the teacher's classifier.

    Args:
        projector: of a trained :class:`SimKD`.
        size: what larger maps are pooled to first, as they were in training.
        weight: [K, C_t].
        bias: [K] or none.

    Shape:
        feature [B, C_s, H, W] or [B, C_s]; returns [B, K].
    """

    def __init__(self, projector: nn.Module, size: tuple[int, int] | None, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        classes, features = weight.shape
        self.projector, self.size = projector, size
        self.classifier = nn.Linear(features, classes, bias=bias is not None, device=weight.device, dtype=weight.dtype)
        self.classifier.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
        self.classifier.requires_grad_(False)

    def forward(self, feature: Tensor) -> Tensor:
        """[B, K] logits."""
        if self.size is None:
            return self.classifier(self.projector(feature))
        size = min(feature.shape[2], self.size[0]), min(feature.shape[3], self.size[1])
        return self.classifier(self.projector(pool_to(feature, size)).mean((2, 3)))


def _block(width_in: int, width_out: int, kernel: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(width_out), nn.ReLU()
