"""Correlation congruence (Peng et al. 2019)."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.logits import constant
from tutelage.losses.precision import at_least_float32, in_float32
from tutelage.losses.relation.sp import flat_rows, unit


class Embedding(nn.Module):
    """A learned affine map of [B, D] to [B, dim]; D is known from the first call.

    It computes in its own dtype (a bf16 model's is bf16) and returns float32 or better.

    Args:
        dim: of the result.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.LazyLinear(dim)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, dim]."""
        return at_least_float32(self.linear(rows.to(self.linear.weight.dtype)))


class CC(Loss):
    """The student's kernel matrix of a batch is the teacher's.

    ``‖K(F_t) − K(F_s)‖²_F / B²`` with K the Gaussian RBF exp(−γ‖x − y‖²) of vectors of length 1, whose Taylor
    expansion to order P is ``e^(−2γ) Σ_{p=0..P} (2γ)^p/p! · (x·y)^p``. Unchanged by the order of the batch and by a
    rotation or a rescaling of any example of what the kernel sees; 0 at B = 1.

    With ``dim`` the kernel sees two embeddings, learned with the student; the first call gives them their widths. The
    teacher's embedding is learned too, so this loss alone can be minimised by embeddings that map all examples to one
    point; ``dim=None`` compares the signals themselves, which needs no common width (K is [B, B]) and cannot be cheated
    so.

    Under DDP each rank compares the examples of its own slice of the batch only; the embeddings are shared as
    parameters are.

    Args:
        dim: width of the embeddings; None for none.
        gamma: γ of the kernel, at least 1e-6.
        order: P, the order of the expansion, ≥ 1.

    Shape:
        student [B, …], teacher [B, …], of any sizes behind B. Returns a scalar.

    Published weight: 100 without embeddings (AberHu's Knowledge-Distillation-Zoo, CIFAR-10, this formula), next to
    cross-entropy at 1. RepDistiller's 0.02 belongs to another formula under the same name (with 128-d embeddings, the
    mean of Σ|δ_b|·|δ_{b+1}|, δ = f_s − f_t, over neighbours in the batch) and says nothing about this one.

    Correlation Congruence for Knowledge Distillation, arXiv:1904.01802.

    Raises:
        TutelageError: gamma, order or dim is out of range.
    """

    least_rows = 2  # fewer have no relation that could differ
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
        """K [B, B] of the rows [B, D]."""
        directions = unit(rows)
        near = 2 * self.gamma * (directions @ directions.T)
        kernel = torch.ones_like(near)
        for p in range(self.order, 0, -1):  # Horner: 1 + near/1 (1 + near/2 (1 + …))
            kernel = 1 + kernel * near / p
        return torch.exp(-2 * self.gamma) * kernel

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The squared distance of the two kernel matrices, averaged over their B² entries: a scalar."""
        student, teacher = flat_rows(student, teacher, "CC")
        student, teacher = self.student_embedding(student), self.teacher_embedding(teacher)
        return (self.kernel(student) - self.kernel(teacher)).square().mean()
