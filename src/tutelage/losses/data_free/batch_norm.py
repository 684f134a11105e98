"""Distance of a batch's statistics from those that a network's BatchNorm layers have gathered of real images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.logits import constant
from tutelage.losses.precision import in_float32


class BatchNormStatistics(nn.Module):
    """Gives images the statistics of the teacher's training images, layer by layer.

    ``Σ_l m_l (‖μ_l − μ̂_l‖₂ + ‖σ²_l − σ̂²_l‖₂)``: μ and σ² (biased) are those of what enters BatchNorm layer l, by
    channel over all images and places; μ̂ and σ̂² are its ``running_mean`` and ``running_var``. Norms are not squared.
    A layer's input is the tap ``<path>.input``, its running statistics are ``<tap>.running_mean`` and
    ``<tap>.running_var``. The teacher is in eval mode, or these would follow the images.

    Args:
        first: m of the first layer, 1 for all others. The code for ImageNet has 10.

    Shape:
        features: list of [B, C_l, …]. means, variances: lists of [C_l]. A scalar.

    Raises:
        TutelageError: there is no layer, there are not as many statistics as layers, or not one for each channel.

    Published weight: DeepInversion 10 to 100 on CIFAR-10 and 0.01 to 0.05 on ImageNet; 1 in CMI's comparison with DFQ.

    Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", 2020, arXiv:1912.08795.
    """

    first: Tensor

    def __init__(self, first: float = 1.0):
        super().__init__()
        self.register_buffer("first", constant(first, "BatchNormStatistics.first", low=0.0), persistent=False)

    @in_float32
    def forward(self, features: Sequence[Tensor], means: Sequence[Tensor], variances: Sequence[Tensor]) -> Tensor:
        """Returns the distance, a scalar."""
        if not features or not len(features) == len(means) == len(variances):
            raise TutelageError(
                "BatchNormStatistics: expected as many means and variances as layers, at least one; found "
                f"{len(features)} layers, {len(means)} means and {len(variances)} variances"
            )
        distances = [_distance(*layer) for layer in zip(features, means, variances, strict=True)]
        return self.first * distances[0] + sum(distances[1:])


def _distance(feature: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Returns ‖μ − μ̂‖₂ + ‖σ² − σ̂²‖₂ of a layer, a scalar."""
    if feature.dim() < 2 or not mean.shape == variance.shape == feature.shape[1:2]:
        raise TutelageError(
            f"BatchNormStatistics: a layer's input {list(feature.shape)} needs a mean and a variance for each channel "
            f"(axis 1); found {list(mean.shape)} and {list(variance.shape)}"
        )
    values = feature.transpose(0, 1).flatten(1)
    found, spread = values.mean(1), values.var(1, correction=0)
    norm = torch.linalg.vector_norm
    return norm(found - mean) + norm(spread - variance)
