"""Curriculum temperature (Li et al. 2023)."""

import math

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.logit.soft_target import soft_target
from tutelage.losses.logits import constant, paired_rows
from tutelage.losses.precision import in_float32


class CTKD(Loss):
    """Soft targets at a temperature that is learned adversarially.

    ``T² · mean_b KL(q‖p)`` at ``T = start + span · σ(θ)``. θ is a parameter (pass it to the optimizer); its gradient is
    reversed and multiplied by λ, so that θ maximises what the student minimises. T² is inside and is differentiated
    too. λ grows from 0 to 1 along half a cosine over the first epochs: in epoch e, counted from 0,
    ``λ = ½ (1 − cos(π · min((e + 1) / ramp, 1)))``; ``on_epoch_start`` sets it. This is the paper's global temperature,
    not the one predicted for each example.

    Args:
        start: lower bound of T.
        span: greatest increase of T above ``start``.
        ramp: number of epochs over which λ grows.

    Attributes:
        theta: the parameter θ, initially 1 as in the published code: T = 15.6.
        reversal: λ, part of the state_dict.

    Shape:
        student, teacher [B, C]; a scalar.

    Raises:
        TutelageError: start < 1e-3, span < 0, ramp < 1, an argument is not finite, or the shapes differ.

    Published weight: 0.9 with 0.1 of cross-entropy; start 1, span 20, ramp 10 (CIFAR-100).

    Li et al., "Curriculum Temperature for Knowledge Distillation", 2023, arXiv:2211.16231.
    """

    over_classes = True
    same_on_ranks = fixed_graph = True  # on_epoch_start only changes a number

    start: Tensor
    span: Tensor
    reversal: Tensor

    def __init__(self, start: float = 1.0, span: float = 20.0, ramp: int = 10):
        super().__init__()
        if ramp < 1:
            raise TutelageError(f"CTKD.ramp: expected 1 epoch or more, found {ramp}")
        self.ramp = ramp
        self.theta = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("start", constant(start, "CTKD.start", low=1e-3), persistent=False)
        self.register_buffer("span", constant(span, "CTKD.span", low=0.0), persistent=False)
        self.register_buffer("reversal", torch.tensor(0.0))
        self.on_epoch_start(0, ramp)

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Sets λ for ``epoch``, counted from 0."""
        self.reversal.fill_(0.5 - 0.5 * math.cos(math.pi * min((epoch + 1) / self.ramp, 1.0)))

    def temperature(self) -> Tensor:
        """Returns T, a scalar, through which the gradient of θ is reversed."""
        theta = self.theta.detach() - self.reversal * (self.theta - self.theta.detach())
        return self.start + self.span * theta.sigmoid()

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "CTKD")
        return soft_target(student, teacher, self.temperature())
