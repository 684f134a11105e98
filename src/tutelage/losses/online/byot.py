"""Be your own teacher: a network's exits learn from its last one (Zhang et al. 2019)."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError, nearest
from tutelage.losses.logit.soft_target import soft_target
from tutelage.losses.logits import checked_temperature, constant, rows
from tutelage.losses.precision import in_float32


class BYOT(nn.Module):
    """Draws each of K exits of a network to the distribution and the last feature of the network itself.

    ``soft · Σ_i T² · mean_b KL(q ‖ p_i) + feature · Σ_i D(f_i, f)``, p_i = softmax(z_i / T) of exit i, and
    q = softmax(z / T) and f of the network, both detached: it learns from the labels alone. The distance D is, by
    ``distance``,

    * ``masked``: mean_b Σ_d (f_id − f_d)² · 1[f_id > 0 or f_d > 0]. The public code sums over the batch, of 128
      examples at 1e-6: 1.28e-4 here, whatever the batch and the number of ranks;
    * ``norm``: √(Σ_b Σ_d (f_id − f_d)²) over the whole batch (of a rank), as mmrazor has it.

    Args:
        soft: weight of the soft targets.
        feature: weight of the distances.
        temperature: T.
        distance: ``masked`` or ``norm``.
        hints: number of exits, from the first, whose feature is compared; −1: all but the last one; None: all.

    Shape:
        student [B, C]; embedding [B, D]; exits [B, K, C]; features [B, K, D]. Returns a scalar.

    Raises:
        TutelageError: an unknown distance, a number out of range, or shapes that do not match.

    Published weight: 0.1 of soft targets at T = 3 and 1e-6, with 0.9 of cross-entropy of all exits (luanyunteng's code
    of the paper's form); mmrazor: 0.3 at T = 3 and 0.03 of all exits but the last, with 1 of cross-entropy of the
    network and 0.7 of each exit.

    Zhang et al., "Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self Distillation",
    2019, arXiv:1905.08094.
    """

    over_classes = True
    temperature: Tensor
    soft: Tensor
    feature: Tensor

    def __init__(
        self,
        soft: float = 0.1,
        feature: float = 1.28e-4,
        temperature: float = 3.0,
        distance: str = "masked",
        hints: int | None = None,
    ):
        super().__init__()
        if distance not in _DISTANCES:
            raise TutelageError(f"BYOT.distance: found {distance!r}; {nearest(distance, _DISTANCES)}")
        self.distance, self.hints = distance, hints
        self.register_buffer("soft", constant(soft, "BYOT.soft", low=0.0), persistent=False)
        self.register_buffer("feature", constant(feature, "BYOT.feature", low=0.0), persistent=False)
        self.register_buffer("temperature", checked_temperature(temperature, "BYOT"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, embedding: Tensor, exits: Tensor, features: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        rows(student, "BYOT")
        fits = exits.dim() == features.dim() == 3 and exits.shape[1] == features.shape[1]
        if not fits or exits[:, 0].shape != student.shape or features[:, 0].shape != embedding.shape:
            raise TutelageError(
                f"BYOT: expected exits [B, K, C] and features [B, K, D] for logits {list(student.shape)} and a feature "
                f"{list(embedding.shape)}; found {list(exits.shape)} and {list(features.shape)}"
            )
        target, last = student.detach(), embedding.detach()
        soft = torch.stack([soft_target(one, target, self.temperature) for one in exits.unbind(1)]).sum()
        compared = [_DISTANCES[self.distance](one, last) for one in features.unbind(1)[: self.hints]]
        return self.soft * soft + self.feature * sum(compared, start=soft.new_zeros(()))


def _masked(own: Tensor, last: Tensor) -> Tensor:
    counts = (own > 0) | (last > 0)
    return ((own - last).square() * counts).sum(1).mean()


def _norm(own: Tensor, last: Tensor) -> Tensor:
    return torch.linalg.vector_norm(own - last)


_DISTANCES = {"masked": _masked, "norm": _norm}
