"""Divergences to a mixture of both distributions: generalised Jensen-Shannon, skew and skew reverse KL."""

import torch
from torch import Tensor, nn

from tutelage.losses.logits import checked_temperature, constant, kl, log_softmax, paired_rows
from tutelage.losses.precision import in_float32


def log_mixture(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Returns log(λ·a + (1 − λ)·b), exactly log b for λ = 0 and log a for λ = 1.

    Args:
        first: log a, [B, C], finite.
        second: log b, the same.
        share: λ in [0, 1], a scalar.
    """
    return torch.logaddexp(first + share.log(), second + (-share).log1p())


class JSD(nn.Module):
    """Matches the student's distribution to the teacher's by the generalised Jensen-Shannon divergence.

    ``T² · mean [β·KL(q‖m) + (1 − β)·KL(p‖m)]``, ``m = βq + (1 − β)p``, q and p the softmax of the teacher's and the
    student's logits / T: summed over classes, averaged over rows, T² inside (the reference, TRL, has none).

    As in the reference, β = 0 is the forward KL(q‖p) and β = 1 the reverse KL(p‖q). **It is discontinuous there**: as β
    tends to 0 or 1 the formula tends to 0. With ``normalized`` it is divided by β(1 − β), whose limits are these two
    KLs, so that a sweep over β is continuous and weights are comparable.

    Args:
        beta: β, from 0 to 1.
        temperature: T.
        normalized: whether to divide by β(1 − β).

    Shape:
        student, teacher [B, C]; a scalar. For tokens [B, L, C], ``where`` of the term selects rows.

    Raises:
        TutelageError: β outside [0, 1], T not finite or below 1e-3, or shapes that differ.

    Published weight: 1, β 0.5, T = 1 (GKD; TRL).

    Agarwal et al., "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes", 2024,
    arXiv:2306.13649.
    """

    over_classes = True
    beta: Tensor
    temperature: Tensor

    def __init__(self, beta: float = 0.5, temperature: float = 1.0, normalized: bool = False):
        super().__init__()
        self.normalized = normalized
        self.register_buffer("beta", constant(beta, "JSD.beta", 0.0, 1.0), persistent=False)
        self.register_buffer("temperature", checked_temperature(temperature, "JSD"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "JSD")
        log_p, log_q = log_softmax(student, self.temperature), log_softmax(teacher, self.temperature)
        log_m = log_mixture(log_q, log_p, self.beta)
        of_teacher, of_student = self._shares()
        return self.temperature**2 * (of_teacher * kl(log_q, log_m).mean() + of_student * kl(log_p, log_m).mean())

    def _shares(self) -> tuple[Tensor, Tensor]:
        """Returns the factors of KL(q‖m) and KL(p‖m). At β = 0 and 1 one of these is 0, because m is q or p."""
        beta, rest = self.beta, 1 - self.beta
        end = beta * rest == 0
        if self.normalized:
            return _inverse(rest), _inverse(beta)
        return beta.where(~end, 1), rest.where(~end, 1)


def _inverse(x: Tensor) -> Tensor:
    """Returns 1/x, and 0 for 0."""
    return x.where(x > 0, 1).reciprocal() * (x > 0)


class SkewKL(nn.Module):
    """Matches a mixture of student and teacher to the teacher by the forward KL.

    ``T² · mean KL(q ‖ αq + (1 − α)p)``: summed over classes, averaged over rows, T² inside. α = 0 is KL(q‖p), soft
    targets; α > 0 bounds value and gradient as the student's probabilities tend to 0. The reference computes the
    cross-entropy, which is larger by H(q).

    Args:
        skew: α, from 0 to 1.
        temperature: T.

    Shape:
        student, teacher [B, C]; a scalar. For tokens [B, L, C], ``where`` of the term selects rows.

    Raises:
        TutelageError: α outside [0, 1], T not finite or below 1e-3, or shapes that differ.

    Published weight: 1, α 0.1, T = 1 (the authors' code).

    Ko et al., "DistiLLM: Towards Streamlined Distillation for Large Language Models", 2024, arXiv:2402.03898.
    """

    over_classes = True
    skew: Tensor
    temperature: Tensor

    def __init__(self, skew: float = 0.1, temperature: float = 1.0):
        super().__init__()
        self.register_buffer("skew", constant(skew, f"{type(self).__name__}.skew", 0.0, 1.0), persistent=False)
        self.register_buffer("temperature", checked_temperature(temperature, type(self).__name__), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, type(self).__name__)
        return self._divergence(log_softmax(teacher, self.temperature), log_softmax(student, self.temperature))

    def _divergence(self, first: Tensor, second: Tensor) -> Tensor:
        return self.temperature**2 * kl(first, log_mixture(first, second, self.skew)).mean()


class SkewReverseKL(SkewKL):
    """Matches the student to a mixture of student and teacher by the reverse KL.

    ``T² · mean KL(p ‖ αp + (1 − α)q)``: :class:`SkewKL` with teacher and student swapped. α = 0 is KL(p‖q).

    Args:
        skew: α, from 0 to 1.
        temperature: T.

    Shape:
        student, teacher [B, C]; a scalar. For tokens [B, L, C], ``where`` of the term selects rows.

    Raises:
        TutelageError: α outside [0, 1], T not finite or below 1e-3, or shapes that differ.

    Published weight: 1, α 0.1, T = 1 (the authors' code).

    Ko et al., "DistiLLM: Towards Streamlined Distillation for Large Language Models", 2024, arXiv:2402.03898.
    """

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        return super().forward(teacher, student)
