"""Soft decision trees, Frosst & Hinton 2017, "Distilling a Neural Network Into a Soft Decision Tree"."""

from collections.abc import Sequence
from math import isfinite, prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError, nearest
from tutelage.losses.precision import at_least_float32
from tutelage.models.blocks import chain, check_positive

ANSWERS = ("leaf", "mean")


class SoftTree(nn.Sequential):
    """A complete binary tree with probabilistic decisions at inner nodes and fixed distributions at leaves.

    Inner node i goes right with ``p_i(x) = σ(β (x·w_i + b_i))``; leaf l is reached with ``P^l(x)``, the product along
    its path, and has the distribution ``Q^l = softmax(φ^l)`` for every x. All inner nodes are one Linear, ``filters``,
    breadth first from the root: the children of node i are 2i + 1 (left) and 2i + 2 (right). ``paths`` gives ``log P``
    [B, 2^depth], leaves from left to right; ``leaves.logits`` is φ [2^depth, C]. A loss that reads these two, as
    :mod:`tutelage.losses.logit.soft_tree` does, trains the tree as the paper does.

    The logits are log-probabilities. In training they are ``log Σ_l P^l Q^l``, the mean of all leaves, so
    that any loss on logits has a gradient for every parameter; in evaluation ``answer`` decides. β scales the
    initial values and the steps of w and b. Filters have torch's initialisation; φ is drawn from N(0, 1), since
    equal leaves would give the filters no gradient. The paper specifies neither.

    Args:
        input_shape: the shape of one example, such as [1, 28, 28].
        num_classes: number of logits.
        depth: depth of the leaves; 1 is a single decision.
        beta: β, the inverse temperature of every decision.
        answer: in evaluation ``leaf``, the distribution of the leaf of greatest path probability, explained by
            one path; or ``mean``, the mean of all leaves by path probability. The paper describes both.

    Raises:
        TutelageError: a size or β is not positive, or ``answer`` is unknown.

    Frosst & Hinton, "Distilling a Neural Network Into a Soft Decision Tree", 2017, arXiv:1711.09784.
    """

    flatten: nn.Flatten
    filters: nn.Linear
    paths: "Paths"
    leaves: "Leaves"

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, depth: int = 8, beta: float = 1.0, answer: str = "leaf"
    ):
        check_positive("SoftTree", input_shape=input_shape, num_classes=num_classes, depth=depth)
        if not (isfinite(beta) and beta > 0):
            raise TutelageError(f"SoftTree: beta must be a positive number; found {beta!r}")
        super().__init__(
            chain(
                flatten=nn.Flatten(),
                filters=nn.Linear(prod(input_shape), 2**depth - 1),
                paths=Paths(beta),
                leaves=Leaves(2**depth, num_classes, answer),
            )
        )


class Paths(nn.Module):
    """Maps activations of the inner nodes [B, 2^d − 1], breadth first, to the leaves' log path probabilities [B, 2^d].

    Computes in float32 or better, since rounding errors accumulate over the levels.

    Args:
        beta: factor of the activations.
    """

    def __init__(self, beta: float):
        super().__init__()
        self.beta = beta

    def forward(self, activation: Tensor) -> Tensor:
        """Returns the log path probabilities, computed level by level, left children first."""
        z = self.beta * at_least_float32(activation)
        turns = torch.stack([F.logsigmoid(-z), F.logsigmoid(z)], -1)
        reached = turns.new_zeros(len(z), 1)
        while (nodes := reached.shape[1]) <= z.shape[1]:
            reached = (reached[:, :, None] + turns[:, nodes - 1 : 2 * nodes - 1]).flatten(1)
        return reached


class Leaves(nn.Module):
    """Maps log path probabilities [B, L] to logits [B, C] by the leaves' distributions.

    Args:
        leaves: L.
        num_classes: C.
        answer: ``leaf`` or ``mean``, as for :class:`SoftTree`.

    Attributes:
        logits: φ [L, C].

    Raises:
        TutelageError: ``answer`` is neither.
    """

    def __init__(self, leaves: int, num_classes: int, answer: str):
        super().__init__()
        if answer not in ANSWERS:
            raise TutelageError(f"SoftTree: answer {answer!r} is not known; {nearest(answer, ANSWERS)}")
        self.answer = answer
        self.logits = nn.Parameter(torch.randn(leaves, num_classes))

    def forward(self, paths: Tensor) -> Tensor:
        """Returns log-probabilities, at least the logarithm of the smallest normal number (−87 in float32)."""
        if self.answer == "leaf" and not self.training:
            return at_least_float32(self.logits)[paths.argmax(1)].log_softmax(1)
        highest = paths.amax(1, keepdim=True).detach()
        mean = (paths - highest).exp() @ at_least_float32(self.logits).softmax(1)
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).log() + highest
