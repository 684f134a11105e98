"""Similarity-preserving distillation (Tung & Mori 2019), and two helpers that all relation losses share."""

import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.precision import in_float32


def flat_rows(student: Tensor, teacher: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Flattens two signals of one batch, [B, …] each, to rows [B, D_s] and [B, D_t]; the widths may differ.

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
    """Scales vectors (last dimension) to length 1; a zero vector stays zero, with gradient 0.

    ``F.normalize`` divides by max(‖x‖, 1e-12), which multiplies the gradient of an all-zero row by 10¹².
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.masked_fill(length == 0, torch.inf)


class SP(Loss):
    """Matches the similarities between the examples of a batch to the teacher's.

    ``‖r(G_t) − r(G_s)‖²_F / B²`` with G = F·Fᵀ [B, B] the inner products of the batch's flattened signals and r(·)
    scaling each row to L2 length 1. Invariant to a rotation or a rescaling of either signal and to the order of the
    batch; 0 at B = 1. An all-zero row of G stays zero, with gradient 0.

    Under DDP each rank compares the examples of its own slice of the batch only: nothing is gathered, so the loss of
    two ranks with 32 examples each is not that of one with 64.

    Shape:
        student [B, …], teacher [B, …], of any sizes after B: maps, tokens or vectors. Returns a scalar.

    Published weight: 3000 (RepDistiller, CIFAR-100, on the last maps), with cross-entropy at 1.

    Tung & Mori, "Similarity-Preserving Knowledge Distillation", 2019, arXiv:1907.09682.
    """

    least_rows = 2  # fewer examples have no relations

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the squared distance of the two similarity matrices, averaged over their B² entries: a scalar."""
        student, teacher = flat_rows(student, teacher, "SP")
        return (unit(student @ student.T) - unit(teacher @ teacher.T)).square().mean()
