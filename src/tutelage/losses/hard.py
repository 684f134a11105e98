"""Losses against labels that torch does not have in this form: with class weights, and with unknown labels."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.logits import constant
from tutelage.losses.masks import masked_mean, only
from tutelage.losses.ranks import mean_over_ranks

BALANCED = "balanced"


def cross_entropy(label_smoothing: float = 0.0, class_weights: str | Sequence[float] | None = None) -> nn.Module:
    """Returns the cross-entropy of labels: torch's, or with weights for the classes.

    Args:
        label_smoothing: in [0, 1].
        class_weights: see :class:`WeightedCrossEntropy`; None: torch's ``CrossEntropyLoss``.
    """
    if class_weights is None:
        return nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    if class_weights == BALANCED:
        return BalancedCrossEntropy(label_smoothing=label_smoothing)
    return WeightedCrossEntropy(class_weights, label_smoothing)


class WeightedCrossEntropy(Loss):
    """Σ_i w(y_i)·(−log p_i(y_i)) / Σ_i w(y_i) over the examples of a batch.

    Args:
        class_weights: C numbers from 0 on; :class:`BalancedCrossEntropy` counts them: w(c) = n / (C·n_c) of the n
            labelled training examples, n_c of class c (that of scikit-learn; 0 for a class without an example).
        label_smoothing: in [0, 1]; as of torch's ``CrossEntropyLoss``.

    Shapes: input [N, C] or [B, H, W, C] logits, target [N] or [B, H, W] integers, −100 where there is no label; result
    a scalar in nats.

    Raises:
        TutelageError: the weights are none, or the smoothing is out of range.
    """

    takes_unlabelled = counts_over_ranks = True  # the mean is over weights, of all ranks
    class_weights: Tensor

    def __init__(self, class_weights: str | Sequence[float], label_smoothing: float = 0.0):
        super().__init__()
        if class_weights == BALANCED and isinstance(self, BalancedCrossEntropy):
            weights = torch.empty(0)
        elif isinstance(class_weights, str):
            raise TutelageError(f"class_weights must be 'balanced' or one number a class; found {class_weights!r}")
        else:
            weights = torch.tensor([float(one) for one in class_weights])
            if not len(weights) or not bool((weights.isfinite() & (weights >= 0)).all()) or not bool(weights.any()):
                raise TutelageError(f"class_weights must be numbers from 0 on, not all 0; found {list(class_weights)}")
        constant(label_smoothing, "label_smoothing", 0.0, 1.0)  # checks it
        self.label_smoothing = float(label_smoothing)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Returns the weighted mean."""
        input, target = input.flatten(0, -2), target.flatten()
        if len(self.class_weights) != input.shape[-1]:
            raise TutelageError(f"class_weights: {len(self.class_weights)} numbers for {input.shape[-1]} classes")
        weights = self.class_weights.to(input.dtype)
        summed = F.cross_entropy(input, target, weights, label_smoothing=self.label_smoothing, reduction="sum")
        return summed / mean_over_ranks(weights[target[target >= 0]].sum(), 1e-6)

    def extra_repr(self) -> str:
        """Returns the arguments."""
        return f"label_smoothing={self.label_smoothing}"


class BalancedCrossEntropy(WeightedCrossEntropy):
    """:class:`WeightedCrossEntropy` with weights that are counted from the training labels.

    Args:
        class_weights: ``balanced``.
        label_smoothing: see :class:`WeightedCrossEntropy`.

    Shapes: input [N, C] or [B, H, W, C] logits, target [N] or [B, H, W] integers, −100 where there is no label; result
    a scalar in nats.

    Raises:
        TutelageError: the training labels come with their samples, so that they can't be counted before training.
    """

    def __init__(self, class_weights: str = BALANCED, label_smoothing: float = 0.0):
        super().__init__(class_weights, label_smoothing)
        self.labels: Tensor | None = None

    def bind(self, keys: Tensor, labels: Tensor) -> None:
        """Notes the training labels, whose classes are counted once their number is known."""
        if labels.ndim > 1 and labels[0].numel() == 1:  # stands for labels of pixels and tokens of one's own data
            raise TutelageError(
                "loss.class_weights=balanced: the labels come with the samples, and counting them would read all; give "
                "one number a class"
            )
        self.labels = labels[labels >= 0]

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Returns the weighted mean."""
        if self.labels is not None:
            count = torch.bincount(self.labels.cpu().flatten(), minlength=input.shape[-1]).double()
            weights = torch.where(count > 0, count.sum() / (len(count) * count.clamp(min=1)), 0.0)
            self.class_weights, self.labels = weights.float().to(input.device), None
        return super().forward(input, target)


class _OfKnown(Loss):
    """An elementwise loss, averaged over the elements whose target is not NaN."""

    takes_unlabelled = counts_over_ranks = True  # the mean is over known elements, of all ranks

    @staticmethod
    def mean(loss: Callable[..., Tensor], input: Tensor, target: Tensor) -> Tensor:
        """Returns the mean of ``loss`` over known elements; the others get a gradient of 0."""
        known = ~target.isnan()
        return masked_mean(loss(input, only(target, known), reduction="none"), known)


class BinaryCrossEntropy(_OfKnown):
    """Mean over known labels of −y·log σ(z) − (1 − y)·log(1 − σ(z)), in nats; 0 without any.

    Shapes: input [N, K] logits, target [N, K] floats, NaN where a label is not known, result a scalar.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Returns the mean."""
        return self.mean(F.binary_cross_entropy_with_logits, input, target)


class SquaredError(_OfKnown):
    """Mean over known numbers of (z − y)², in the square of the label's unit; 0 without any.

    Shapes: input [N, d], target [N, d] floats, NaN where a number is not known, result a scalar.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Returns the mean."""
        return self.mean(F.mse_loss, input, target)
