"""The terms that DAFL's generator minimises beside the student's loss (Chen et al. 2019)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.logits import constant, rows
from tutelage.losses.precision import in_float32


class OneHot(nn.Module):
    """Makes the teacher sure of its answer: cross-entropy of its logits with its own most probable class.

    ``−mean_b log softmax(z)_ŷ``, ``ŷ = argmax_c z``, which has no gradient. It is 0 where the teacher is certain.

    Shape:
        logits: [B, C]. A scalar.

    Raises:
        TutelageError: logits are not [B, C].

    Published weight: 1 on MNIST, 0.05 on CIFAR-10.

    Chen et al., "Data-Free Learning of Student Networks", 2019, arXiv:1904.01186.
    """

    over_classes = True

    @in_float32
    def forward(self, logits: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        return F.cross_entropy(rows(logits, "OneHot"), logits.argmax(1))


class ClassBalance(nn.Module):
    """Makes images of all classes alike: the negative entropy of the mean prediction of a batch.

    ``Σ_c p̄_c log p̄_c``, ``p̄ = mean_b softmax(z_b)``; −log C where the classes are equally frequent, the least there is.
    The logarithm is of base 10, as in the authors' code: their weight of 5 is 2.17 in nats.

    Args:
        base: of the logarithm.

    Shape:
        logits: [B, C]. A scalar.

    Raises:
        TutelageError: logits are not [B, C], or the base is not above 1.

    Published weight: 5.

    Chen et al., "Data-Free Learning of Student Networks", 2019, arXiv:1904.01186.
    """

    over_classes = True
    base: Tensor

    def __init__(self, base: float = 10.0):
        super().__init__()
        if not base > 1:
            raise TutelageError(f"ClassBalance.base must be above 1; found {base!r}")
        self.register_buffer("base", constant(base, "ClassBalance.base"), persistent=False)

    @in_float32
    def forward(self, logits: Tensor) -> Tensor:
        """Returns the negative entropy, a scalar."""
        mean = rows(logits, "ClassBalance").log_softmax(1).logsumexp(0) - math.log(len(logits))  # its logarithm
        return (mean.exp() * mean).sum() / self.base.log()


class Activation(nn.Module):
    """Makes the teacher's features large, as those of real images are: ``−mean |f|`` over all elements.

    Shape:
        feature: [B, …]. A scalar.

    Published weight: 0.1 on MNIST, 0.01 on CIFAR-10; of the features before the classifier.

    Chen et al., "Data-Free Learning of Student Networks", 2019, arXiv:1904.01186.
    """

    @in_float32
    def forward(self, feature: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        return -feature.abs().mean()
