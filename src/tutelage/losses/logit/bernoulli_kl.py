"""Soft targets for multi-label classification."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.logits import LOWEST, checked_temperature, kl
from tutelage.losses.masks import masked_mean, only
from tutelage.losses.precision import check_same_shape, in_float32


class BernoulliKL(Loss):
    """Matches the student's softened probability of each yes-or-no label to the teacher's: soft targets of a sigmoid.

    ``T² · mean KL(Bernoulli(q) ‖ Bernoulli(p))``, ``q = σ(z_t / T)``, ``p = σ(z_s / T)``: averaged over all B·K labels
    as ``torch.nn.BCEWithLogitsLoss`` does, T² inside. Computed from log σ(±z): finite for any logits, and accurate for
    near-equal ones. Equals :class:`~tutelage.losses.logit.soft_target.SoftTarget` of the logit pairs (z, 0).

    With ``label``, the mean is over the elements whose label is known (not NaN), with several ranks over those of all
    ranks; 0 if none is known. Without it, all elements count.

    Args:
        temperature: T.

    Shape:
        student, teacher [B, K], or any other shape, a logit for each label; label the same, NaN if missing. A scalar.

    Raises:
        TutelageError: T is not finite or below 1e-3, or shapes differ.

    No published weight. The binary form of Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network",
    2015, arXiv:1503.02531.
    """

    takes_unlabelled = counts_over_ranks = True  # the mean is over known elements, of all ranks
    temperature: Tensor

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.register_buffer("temperature", checked_temperature(temperature, "BernoulliKL"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar."""
        check_same_shape(student, teacher, "BernoulliKL")
        if label is not None and (label.shape != student.shape or not label.is_floating_point()):
            raise TutelageError(
                f"BernoulliKL: expected floats {list(student.shape)} as labels, NaN if missing; "
                f"found {label.dtype} {list(label.shape)}"
            )
        known = None if label is None else ~label.isnan()
        log_q, log_p = (_log_probabilities(only(z, known), self.temperature) for z in (teacher, student))
        return self.temperature**2 * masked_mean(kl(log_q, log_p), known)


def _log_probabilities(logits: Tensor, temperature: Tensor) -> Tensor:
    """Returns the log-probabilities of yes and no, […, 2]."""
    logits = logits.clamp(LOWEST, -LOWEST) / temperature
    return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], -1)
