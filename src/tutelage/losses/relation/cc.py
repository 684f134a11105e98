"""Correlation congruence (Peng et al. 2019)."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.logits import constant
from tutelage.losses.precision import at_least_float32, in_float32
from tutelage.losses.relation.sp import flat_rows, unit


class Embedding(nn.Module):
    """A learned affine map of [B, D] to [B, dim]; D is taken from the first call.

    Computes in the dtype of its weights (bf16 in a bf16 model) and returns float32 or better.

    Args:
        dim: width of the result.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.LazyLinear(dim)

    def forward(self, rows: Tensor) -> Tensor:
        """Returns the embeddings, [B, dim]."""
        return at_least_float32(self.linear(rows.to(self.linear.weight.dtype)))


class CC(Loss):
    """Matches the student's kernel matrix of a batch to the teacher's.

    ``‖K(F_t) − K(F_s)‖²_F / B²`` with K the Gaussian RBF exp(−γ‖x − y‖²) of vectors of length 1, whose Taylor
    expansion to order P is ``e^(−2γ) Σ_{p=0..P} (2γ)^p/p! · (x·y)^p``. Invariant to the order of the batch, to a
    rotation of the kernel's inputs and to a rescaling of any example of them; 0 at B = 1.

    With ``dim`` the kernel compares two learned embeddings, whose input widths are taken from the first call. The
    teacher's embedding is learned too, so this loss alone has a trivial minimum that maps all examples to one point.
    ``dim=None`` compares the signals themselves, which need no common width (K is [B, B]), and has no such minimum.

    Under DDP each rank compares the examples of its own slice of the batch only; the embeddings are shared as
    parameters are.

    Args:
        dim: width of the embeddings; None for none.
        gamma: γ of the kernel, at least 1e-6.
        order: P, the order of the expansion, ≥ 1.

    Shape:
        student [B, …], teacher [B, …], of any sizes after B. Returns a scalar.

    Published weight: 100 without embeddings (AberHu's Knowledge-Distillation-Zoo, CIFAR-10, this formula), with
    cross-entropy at 1. RepDistiller's 0.02 is for another formula of the same name (with 128-d embeddings, the mean of
    Σ|δ_b|·|δ_{b+1}|, δ = f_s − f_t, over neighbours in the batch).

    Peng et al., "Correlation Congruence for Knowledge Distillation", 2019, arXiv:1904.01802.

    Raises:
        TutelageError: gamma, order or dim is out of range.
    """

    least_rows = 2  # fewer examples have no relations
    gamma: Tensor

    def __init__(self, dim: int | None = 128, gamma: float = 0.4, order: int = 2):
        super().__init__()
        for name, value in (("order", order), ("dim", 1 if dim is None else dim)):
            if not isinstance(value, int) or value < 1:
                raise TutelageError(f"CC.{name}: expected an integer of 1 or more, found {value!r}")
        self.order = order
        self.register_buffer("gamma", constant(gamma, "CC.gamma", low=1e-6), persistent=False)
        self.student_embedding = nn.Identity() if dim is None else Embedding(dim)
        self.teacher_embedding = nn.Identity() if dim is None else Embedding(dim)

    def kernel(self, rows: Tensor) -> Tensor:
        """Returns K [B, B] of the rows [B, D]."""
        directions = unit(rows)
        near = 2 * self.gamma * (directions @ directions.T)
        kernel = torch.ones_like(near)
        for p in range(self.order, 0, -1):  # Horner: 1 + near/1 (1 + near/2 (1 + …))
            kernel = 1 + kernel * near / p
        return torch.exp(-2 * self.gamma) * kernel

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the squared distance of the two kernel matrices, averaged over their B² entries: a scalar."""
        student, teacher = flat_rows(student, teacher, "CC")
        student, teacher = self.student_embedding(student), self.teacher_embedding(teacher)
        return (self.kernel(student) - self.kernel(teacher)).square().mean()
