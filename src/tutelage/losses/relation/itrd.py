"""Information-theoretic representation distillation (Miles et al. 2022)."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import VECTORS, Lazy, check_pair, width
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.sp import unit


class ITRD(Lazy):
    """Correlates the embeddings' channels over a batch, and shares the similarities of its examples.

    ``λ_c · log₂ Σ_d |c_d − 1|^{2α} + λ_m · Σ_ij (Ĝ_s² − Ĝ_st²)_ij``. ``c_d = Σ_b ẑ_s ẑ_t / B`` is the correlation of
    channel d, of embeddings standardised over the batch with B − 1 in the denominator as in the authors' code (so a
    perfect one is 1 − 1/B); ``G = z zᵀ`` of unit rows, ``G_st = G_s ∘ G_t``, ``Ĝ = G / tr G``. z_s is the student's
    embedding after a linear layer to the teacher's width; in the second part it is used as it is if the widths agree. A
    channel that does not vary in the batch has c = 0.

    Args:
        correlation: λ_c.
        mutual: λ_m.
        alpha: Rényi's order α.

    Shape:
        student [B, D_s], teacher [B, D_t]. A scalar; negative values are usual.

    Raises:
        TutelageError: a weight is negative or not finite, or α is not positive.

    Published weight, cross-entropy at 1: λ_c = 2, λ_m = 1 and α = 1.01 for networks of one family, λ_m = 0.05 and
    α = 1.5 for others (CIFAR-100, the authors' commands).

    Miles et al., "Information Theoretic Representation Distillation", 2022, arXiv:2112.00459.
    """

    least_rows = 2  # a single row has no deviation
    embed: nn.Module
    correlation: Tensor
    mutual: Tensor
    alpha: Tensor

    def __init__(self, correlation: float = 2.0, mutual: float = 1.0, alpha: float = 1.01):
        super().__init__()
        if not alpha > 0 or not all(0 <= weight < float("inf") for weight in (correlation, mutual, alpha)):
            raise TutelageError(
                "ITRD: expected finite weights of at least 0 and alpha above 0; "
                f"found correlation={correlation}, mutual={mutual}, alpha={alpha}"
            )
        for name, value in (("correlation", correlation), ("mutual", mutual), ("alpha", alpha)):
            self.register_buffer(name, torch.tensor(float(value)), persistent=False)
        self.outline()

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Makes the linear layer to the teacher's width."""
        self.embed = nn.Linear(width(student), width(teacher))

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the weighted sum of both parts, a scalar."""
        check_pair(student, teacher, "ITRD", (VECTORS,))
        self.build_once(student, teacher)
        embedded = self.embed(student)
        alike = student if width(student) == width(teacher) else embedded
        correlation = (_standardised(embedded) * _standardised(teacher)).mean(0)
        apart = (1 - correlation).abs().pow(2 * self.alpha).sum()
        ours, theirs = (unit(x) @ unit(x).T for x in (alike, teacher))
        both = ours * theirs
        shared = _of_trace_one(ours).square().sum() - _of_trace_one(both).square().sum()
        return self.correlation * apart.log2() + self.mutual * shared


def _standardised(x: Tensor) -> Tensor:
    """Returns the columns of [B, D] with mean 0 and deviation 1; a constant one becomes 0."""
    x = x - x.mean(0)
    return x * (x.square().sum(0) / (len(x) - 1)).clamp_min(1e-20).rsqrt()


def _of_trace_one(gram: Tensor) -> Tensor:
    return gram / gram.trace()
