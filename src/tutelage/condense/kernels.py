"""Neural tangent kernels of infinitely wide ReLU networks in closed form (Jacot 2018, Arora 2019), in float64."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.errors import TutelageError

_NEAREST = 1 - 1e-10  # the largest cosine whose angle has a derivative
Kernel = Callable[[Tensor, Tensor], Tensor]


def arc_cosine(cross: Tensor, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Returns E[relu(u)·relu(v)] and E[relu'(u)·relu'(v)] of Gaussian u, v (Cho & Saul 2009).

    Args:
        cross: their covariances.
        one: variances of u, that broadcast to ``cross``.
        other: variances of v.
    """
    scale = (one * other).sqrt()
    cosine = (cross / scale).clamp(-_NEAREST, _NEAREST)
    angle = cosine.acos()
    twice = 2 * math.pi
    return scale * (angle.sin() + (math.pi - angle) * cosine) / twice, (math.pi - angle) / twice


class _Wide:
    """A kernel Θ(x, x') by the recursion over layers, of covariances at single places of an image.

    Args:
        depth: number of hidden layers.
        weight_variance: σ_w²; a weight is N(0, σ_w² / fan-in).
        bias_variance: σ_b².

    Raises:
        TutelageError: an argument is out of range.
    """

    def __init__(self, depth: int = 1, weight_variance: float = 2.0, bias_variance: float = 0.01):
        if not isinstance(depth, int) or depth < 1:
            raise TutelageError(f"condense.kernel.depth must be a whole number of at least 1; found {depth!r}")
        if not weight_variance > 0 or not bias_variance > 0:
            raise TutelageError(
                "condense.kernel: weight_variance and bias_variance must be above 0; found "
                f"{weight_variance} and {bias_variance}"
            )
        self.depth, self.weight, self.bias = depth, float(weight_variance), float(bias_variance)

    def places(self, images: Tensor) -> Tensor:
        """Returns [N, features, H, W] whose features at a place are what a unit sees there."""
        raise NotImplementedError

    def mixed(self, covariances: Tensor) -> Tensor:
        """Returns the means of covariances [N, H, W] over the places that a unit sees."""
        raise NotImplementedError

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns Θ [N, M] of images [N, C, H, W] and [M, C, H, W], in float64."""
        x, y = self.places(x.double()), self.places(y.double())
        features = x.shape[1]
        cross = torch.einsum("nchw,mchw->nmhw", x, y) / features
        one, other = (z.square().sum(1) / features for z in (x, y))
        cross, one, other = (self._layer(z) for z in (cross, one, other))
        tangent = cross
        for layer in range(self.depth):
            cross, slope = arc_cosine(cross, one[:, None], other[None])
            one, other, tangent = one / 2, other / 2, tangent * slope
            if layer < self.depth - 1:
                cross, one, other = (self._layer(z) for z in (cross, one, other))
                tangent = cross + self._layer(tangent) - self.bias
        return self.weight * (cross + tangent).mean((-2, -1)) + self.bias  # a dense layer over all places

    def _layer(self, covariances: Tensor) -> Tensor:
        shape = covariances.shape
        return self.weight * self.mixed(covariances.reshape(-1, *shape[-2:])).reshape(shape) + self.bias


class FullyConnected(_Wide):
    """The kernel of a perceptron with ``depth`` hidden layers. Arguments of KIP's notebook: σ_w² = 2, σ_b² = 0.01."""

    def places(self, images: Tensor) -> Tensor:
        """Returns all pixels as the features of one place."""
        return images.flatten(1)[:, :, None, None]

    def mixed(self, covariances: Tensor) -> Tensor:
        """Returns them as they are: there is one place."""
        return covariances


class Convolutional(_Wide):
    """The kernel of ``depth`` 3×3 convolutions (zero padding), then a linear classifier of all places.

    Without pooling, so that covariances of different places do not count: the cost is that of H·W perceptrons.
    """

    def places(self, images: Tensor) -> Tensor:
        """Returns the images: channels are the features of a place."""
        return images

    def mixed(self, covariances: Tensor) -> Tensor:
        """Returns the mean over 3×3 places, zeros beyond the edge."""
        return F.avg_pool2d(covariances[:, None], 3, stride=1, padding=1)[:, 0]


def regress(kernel: Kernel, images: Tensor, targets: Tensor, ridge: float, queries: Tensor) -> Tensor:
    """Returns the kernel ridge regression from few images: K_qs (K_ss + λ·tr(K_ss)/n·I)⁻¹ y_s.

    Args:
        kernel: of two sets of images.
        images: [n, C, H, W].
        targets: [n, K], y_s.
        ridge: λ.
        queries: [Q, C, H, W].

    Returns:
        [Q, K] float64.
    """
    return weights(kernel, images, ridge, queries) @ targets


def weights(kernel: Kernel, images: Tensor, ridge: float, queries: Tensor) -> Tensor:
    """Returns [Q, n], by how much each of the images counts for each query: K_qs (K_ss + λ·tr(K_ss)/n·I)⁻¹."""
    own = kernel(images, images)
    own = own + ridge * own.trace() / len(own) * torch.eye(len(own), dtype=own.dtype)
    return torch.linalg.solve(own, kernel(queries, images), left=False)


def accuracy(kernel: Kernel, images: Tensor, targets: Tensor, ridge: float, queries: Tensor, labels: Tensor) -> float:
    """Returns the fraction of queries whose largest regressed target is that of their label, 500 queries at a time."""
    with torch.no_grad():
        parts = [regress(kernel, images, targets, ridge, part).argmax(1) for part in queries.split(500)]
    return float((torch.cat(parts) == labels).double().mean())
