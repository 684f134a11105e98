"""Similarity-preserving distillation (Tung & Mori 2019), and the two steps that every relation loss begins with."""

import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.precision import in_float32


def flat_rows(student: Tensor, teacher: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Two signals of one batch, [B, …] each, as rows [B, D_s] and [B, D_t]; the widths may differ.

    Raises:
        TutelageError: a signal has no feature dimension, the batch is empty, or B differs; names both shapes.
    """
    if student.ndim < 2 or teacher.ndim < 2 or len(student) != len(teacher) or not len(student):
        raise TutelageError(
            f"{what}: expected [B, …] twice with the same B ≥ 1; "
            f"found student {list(student.shape)}, teacher {list(teacher.shape)}"
        )
    return student.flatten(1), teacher.flatten(1)


def unit(x: Tensor) -> Tensor:
    """Vectors (last dimension) at length 1; a zero vector stays zero and gets no gradient.

    ``F.normalize`` divides by max(‖x‖, 1e-12), so the gradient of a dead row is 10¹² times the one that reaches it.
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.masked_fill(length == 0, torch.inf)


class SP(Loss):
    """Examples that are alike for the teacher are alike for the student.

    ``‖r(G_t) − r(G_s)‖²_F / B²`` with G = F·Fᵀ [B, B] the inner products of the batch's flattened signals and r(·)
    bringing each row to L2 length 1. Unchanged by a rotation or a rescaling of either signal, and by the order of the
    batch; 0 at B = 1. A row of G that is all zero (a dead example) stays zero and gets no gradient.

    Under DDP each rank compares the examples of its own slice of the batch only: nothing is gathered, so the loss of
    two ranks with 32 examples each is not that of one with 64.

    Shape:
        student [B, …], teacher [B, …], of any sizes behind B: maps, tokens or vectors. Returns a scalar.

    Published weight: 3000 (RepDistiller, CIFAR-100, on the last maps), next to cross-entropy at 1.

    Similarity-Preserving Knowledge Distillation, arXiv:1907.09682.
    """

    least_rows = 2  # fewer have no relation that could differ

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The squared distance of the two similarity matrices, averaged over their B² entries: a scalar."""
        student, teacher = flat_rows(student, teacher, "SP")
        return (unit(student @ student.T) - unit(teacher @ teacher.T)).square().mean()
