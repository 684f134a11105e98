"""A discriminator that tells the student's outputs from the teacher's, and a student that misleads it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, TOKENS, VECTORS, Lazy, Pairs, Stages, pooled, stage_pairs, width
from tutelage.losses.logits import constant
from tutelage.losses.precision import in_float32


class Adversarial(Lazy):
    """Makes the student's features or logits indistinguishable from the teacher's.

    ``Σ_stages −mean_b [log σ(D(t)) + log(1 − σ(D(s)))]``, which the discriminators D descend. The gradient is reversed
    and multiplied by ``strength`` where it enters the student's side, so the student ascends the same value: one
    backward pass and one optimizer make simultaneous gradient steps of both players. D is three linear layers with
    ReLU, of the teacher's width → ``hidden`` → ``hidden`` → 1. Maps are averaged over positions and tokens over the
    sequence. s and t are standardised over their width, without learned scale, or D would tell them by the size of
    batch statistics; a student of another width is first mapped linearly to the teacher's, against D as the student is.
    D has parameters (pass them to the optimizer), part of the state_dict. Where D knows nothing the value is 2 log 2.

    Args:
        hidden: inner width of D.
        strength: what the student's gradient is multiplied by.
        stages: the greatest number of pairs of stages, each with a D of its own.

    Shape:
        student, teacher [B, C], [B, N, D] or [B, D, H, W], or lists of them. Returns a scalar.

    Raises:
        TutelageError: ``hidden`` is below 1, ``strength`` is negative, or the shapes do not match.

    Published weight: 1 beside similarity losses, with D of 128 units (MEAL). The weights of the yamls are ours.

    Goodfellow et al., "Generative Adversarial Networks", 2014, arXiv:1406.2661; on distillation: Xu, Hsu & Huang,
    "Training Shallow and Thin Networks for Acceleration via Knowledge Distillation with Conditional Adversarial
    Networks", 2018, arXiv:1709.00513; Shen, He & Xue, "MEAL: Multi-Model Ensemble via Adversarial Learning", 2019,
    arXiv:1812.02425.
    """

    discriminators: nn.ModuleList
    projections: nn.ModuleList
    strength: Tensor

    def __init__(self, hidden: int = 128, strength: float = 1.0, stages: int = 5):
        super().__init__()
        if hidden < 1:
            raise TutelageError(f"Adversarial.hidden: expected 1 or more, found {hidden}")
        self.hidden = hidden
        self.register_buffer("strength", constant(strength, "Adversarial.strength", low=0.0), persistent=False)
        self.outline(stages)

    def build(self, pairs: Pairs) -> None:
        """Makes a discriminator for each stage, and a projection where widths differ."""
        self.discriminators = nn.ModuleList(_discriminator(width(t), self.hidden) for _, t in pairs)
        self.projections = nn.ModuleList(
            nn.Identity() if width(s) == width(t) else nn.Linear(width(s), width(t)) for s, t in pairs
        )

    @in_float32
    def forward(self, student: Stages, teacher: Stages) -> Tensor:
        """Returns the discriminators' loss, a scalar."""
        pairs = stage_pairs(student, teacher, "Adversarial", (VECTORS, TOKENS, MAPS))
        self.build_once(pairs)
        parts = zip(self.discriminators, self.projections, pairs, strict=True)
        return torch.stack([self._loss(*part) for part in parts]).sum()

    def _loss(self, discriminator: nn.Module, projection: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
        student, teacher = standardised(projection(pooled(pair[0]))), standardised(pooled(pair[1]))
        said_of_student = discriminator(reversed_gradient(student, self.strength))
        return (F.softplus(-discriminator(teacher)) + F.softplus(said_of_student)).mean()


def _discriminator(inputs: int, hidden: int) -> nn.Sequential:
    layers = nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
    return nn.Sequential(*layers)


def reversed_gradient(x: Tensor, strength: Tensor) -> Tensor:
    """Returns ``x``, whose gradient is multiplied by −``strength`` on its way back (Ganin & Lempitsky 2015)."""
    return x.detach() - strength * (x - x.detach())


def standardised(x: Tensor) -> Tensor:
    """Returns rows [B, D] of mean 0 and variance 1."""
    return F.layer_norm(x, x.shape[1:])
