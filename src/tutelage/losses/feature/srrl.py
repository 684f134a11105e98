"""Softmax regression representation learning (Yang et al. 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, VECTORS, Lazy, check_pair, connector, pooled, width
from tutelage.losses.precision import check_same_shape, in_float32


class SRRL(Lazy):
    """Matches the student's last feature to the teacher's, directly and through the teacher's classifier.

    ``feature · mean (g − f_t)² + logit · mean (W_t g + b_t − z_t)²`` over all elements; ``g = h(f_s)``, maps then
    averaged over H and W, as is f_t. h is a 1×1 convolution (a linear layer for vectors), batch normalisation, ReLU.

    Args:
        feature: weight of the first part, the paper's α.
        logit: weight of the second part, the paper's β.

    Shape:
        student [B, C_s, H, W] or [B, C_s]; teacher [B, C_t, H', W'] or [B, C_t]; classifier_weight [K, C_t] and
        classifier_bias [K] (optional) of the teacher; teacher_logits [B, K]. A scalar.

    Raises:
        TutelageError: a weight is negative or not finite, or shapes do not match.

    Published weight, cross-entropy at 1: for ImageNet both parts at 1 (the authors), for CIFAR-100 β = 5 (cls_KD).

    Yang et al., "Knowledge Distillation via Softmax Regression Representation Learning", ICLR 2021.
    """

    least_rows = 2  # a single vector has no variance
    regressor: nn.Module
    feature: Tensor
    logit: Tensor

    def __init__(self, feature: float = 1.0, logit: float = 1.0):
        super().__init__()
        for name, value in (("feature", feature), ("logit", logit)):
            if not 0 <= value < float("inf"):
                raise TutelageError(f"SRRL's {name} must be finite and not negative; found {value}")
            self.register_buffer(name, torch.tensor(float(value)), persistent=False)
        self.outline()

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Makes the regressor h."""
        self.regressor = connector(student, teacher).append(nn.ReLU())

    @in_float32
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        classifier_weight: Tensor,
        teacher_logits: Tensor,
        classifier_bias: Tensor | None = None,
    ) -> Tensor:
        """Returns the weighted sum of both distances, a scalar."""
        check_pair(student, teacher, "SRRL", (MAPS, VECTORS))
        _check_classifier(teacher, classifier_weight, teacher_logits, classifier_bias)
        self.build_once(student, teacher)
        predicted, target = pooled(self.regressor(student)), pooled(teacher)
        check_same_shape(predicted, target, "SRRL after its regressor")
        logits = F.linear(predicted, classifier_weight, classifier_bias)
        return self.feature * F.mse_loss(predicted, target) + self.logit * F.mse_loss(logits, teacher_logits)


def _check_classifier(teacher: Tensor, weight: Tensor, logits: Tensor, bias: Tensor | None) -> None:
    batch, classes = len(teacher), len(weight)
    expected = {
        "classifier_weight": (weight, [classes, width(teacher)]),
        "teacher_logits": (logits, [batch, classes]),
        "classifier_bias": (bias, [classes]),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and list(tensor.shape) != shape:
            raise TutelageError(
                f"SRRL with teacher {list(teacher.shape)} and classifier_weight {list(weight.shape)} needs "
                f"{name} of shape {shape}; found {list(tensor.shape)}"
            )
