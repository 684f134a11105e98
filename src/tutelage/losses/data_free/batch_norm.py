"""Distance of a batch's statistics from those that a network's BatchNorm layers have gathered of real images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.data_free.rounds import RoundLoss
from tutelage.losses.logits import constant
from tutelage.losses.precision import in_float32

Statistics = tuple[Tensor, Tensor]  # mean and variance of a layer's input, each [C]


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
        layers = zip(self.compared([_statistics(*layer) for layer in zip(features, means, variances, strict=True)]),
                     means, variances, strict=True)  # fmt: skip
        norm = torch.linalg.vector_norm
        distances = [norm(found - mean) + norm(spread - variance) for (found, spread), mean, variance in layers]
        return self.first * distances[0] + sum(distances[1:])

    def compared(self, found: list[Statistics]) -> list[Statistics]:
        """Returns the statistics that are compared with the teacher's, by layer: those of the images."""
        return found


class SmoothedStatistics(BatchNormStatistics, RoundLoss):
    """Gives the images of all rounds together the statistics of the teacher's training images.

    As ``BatchNormStatistics``, but of ``r μ̄_l + (1 − r) μ_l`` and ``r σ̄²_l + (1 − r) σ²_l``: μ̄ and σ̄² are moving
    averages over the earlier rounds, which take those of a round's last step at its end, ``x̄ ← r x̄ + (1 − r) x``. They
    begin with those of the first round, which is compared without them; they are part of the state.

    Args:
        momentum: r, from 0 to below 1; published: 0.9.
        first: m of the first layer, 1 for all others.

    Raises:
        TutelageError: r is out of range; or as for ``BatchNormStatistics``.

    Published weight: 10.

    Fang et al., "Up to 100× Faster Data-free Knowledge Distillation", 2022, arXiv:2112.06253.
    """

    momentum: Tensor

    def __init__(self, momentum: float = 0.9, first: float = 1.0):
        super().__init__(first)
        if not 0 <= momentum < 1:
            raise TutelageError(f"SmoothedStatistics.momentum must be from 0 to below 1; found {momentum!r}")
        self.register_buffer("momentum", torch.tensor(float(momentum)), persistent=False)
        self._earlier: list[Statistics] = []
        self._last: list[Statistics] = []

    def compared(self, found: list[Statistics]) -> list[Statistics]:
        """Returns the statistics of the images averaged with those of earlier rounds."""
        self._last = [(mean.detach(), spread.detach()) for mean, spread in found]
        return self._averaged(found) if self._earlier else found

    def _averaged(self, found: list[Statistics]) -> list[Statistics]:
        r = self.momentum
        pairs = zip(self._earlier, found, strict=True)
        return [(r * a.to(b) + (1 - r) * b, r * c.to(d) + (1 - r) * d) for (a, c), (b, d) in pairs]

    def on_round_end(self) -> None:
        """Takes the statistics of the round's last images into the averages."""
        self._earlier, self._last = self._averaged(self._last) if self._earlier else self._last, []

    def get_extra_state(self) -> list[Tensor]:
        """Returns the averages of each layer's means and variances in turn."""
        return [one for layer in self._earlier for one in layer]

    def set_extra_state(self, state: list[Tensor]) -> None:
        """Takes averages over."""
        self._earlier = list(zip(state[::2], state[1::2], strict=True))


def _statistics(feature: Tensor, mean: Tensor, variance: Tensor) -> Statistics:
    """Returns mean and biased variance of a layer's input by channel."""
    if feature.dim() < 2 or not mean.shape == variance.shape == feature.shape[1:2]:
        raise TutelageError(
            f"BatchNormStatistics: a layer's input {list(feature.shape)} needs a mean and a variance for each channel "
            f"(axis 1); found {list(mean.shape)} and {list(variance.shape)}"
        )
    values = feature.transpose(0, 1).flatten(1)
    return values.mean(1), values.var(1, correction=0)
