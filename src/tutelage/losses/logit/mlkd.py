"""Multi-level logit distillation (Jin et al. 2023)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.logit.soft_target import soft_target
from tutelage.losses.logits import checked_temperature, constant, log_softmax, paired_rows
from tutelage.losses.precision import in_float32


class MLKD(nn.Module):
    """Soft targets, relations of examples and relations of classes, each summed over several temperatures.

    ``Σ_T [instance · T² · mean_b KL(q‖p) + batch · ‖P Pᵀ − Q Qᵀ‖² / B + classes · ‖Pᵀ P − Qᵀ Q‖² / C]``, P and Q [B, C]
    the softened probabilities of student and teacher. Only the first part has the factor T².

    The published code sums over a weakly and a strongly augmented view of an image, with 0.1 of cross-entropy and 0.9
    of each part. It masks the weak view's parts by the teacher's confidence at its median, a factor of ½, and computes
    the last two parts for the weak view only. Per temperature this gives 0.2 of cross-entropy, 1.35 of soft targets and
    0.45 of each relation. Here one view is used: the ratios are kept, 6.75 of soft targets to 1 of cross-entropy and
    1/3 of each relation to 1 of soft targets, and the sum is halved.

    Args:
        temperatures: one or more T.
        instance: weight of the soft targets.
        batch: weight of the relations of examples.
        classes: weight of the relations of classes.

    Shape:
        student, teacher [B, C]; a scalar. Needs memory for [B, B], never for [C, C].

    Raises:
        TutelageError: no temperature, one below 1e-3, a weight is negative or not finite, or the shapes differ.

    Published weight: 0.675 with 0.1 of cross-entropy (CIFAR-100; the authors' code, as above).

    Jin et al., "Multi-Level Logit Distillation", CVPR 2023.
    """

    over_classes = True
    temperatures: Tensor
    instance: Tensor
    batch: Tensor
    classes: Tensor

    def __init__(
        self,
        temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
        instance: float = 1.0,
        batch: float = 1 / 3,
        classes: float = 1 / 3,
    ):
        super().__init__()
        if not temperatures:
            raise TutelageError("MLKD.temperatures: expected one or more, found none")
        checked = torch.stack([checked_temperature(t, "MLKD") for t in temperatures])
        self.register_buffer("temperatures", checked, persistent=False)
        self.register_buffer("instance", constant(instance, "MLKD.instance", low=0.0), persistent=False)
        self.register_buffer("batch", constant(batch, "MLKD.batch", low=0.0), persistent=False)
        self.register_buffer("classes", constant(classes, "MLKD.classes", low=0.0), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "MLKD")
        levels = [self._level(student, teacher, temperature) for temperature in self.temperatures]
        return torch.stack(levels).sum()

    def _level(self, student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
        p, q = log_softmax(student, temperature).exp(), log_softmax(teacher, temperature).exp()
        instance = soft_target(student, teacher, temperature)
        # With D = P − Q and S = P + Q: P Pᵀ − Q Qᵀ = ½ (D Sᵀ + S Dᵀ), and likewise Pᵀ P − Qᵀ Q, whose squared norm
        # then needs only [B, B]. Subtracting first avoids cancellation when P and Q are close.
        difference, total = p - q, p + q
        cross = difference @ total.T
        batch = (0.5 * (cross + cross.T)).square().sum() / p.shape[0]
        inner = (difference @ difference.T * (total @ total.T)).sum() + (cross * cross.T).sum()
        classes = 0.5 * inner / p.shape[1]
        return self.instance * instance + self.batch * batch + self.classes * classes
