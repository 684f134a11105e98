"""Distillation by a linear projector, batch normalisation and a logarithm (Miles & Mikolajczyk 2024)."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import VECTORS, Lazy, Norm1d, check_pair, width
from tutelage.losses.precision import in_float32


class SRD(Lazy):
    """Matches embeddings up to a linear map, in a distance that grows with its largest deviations.

    ``log Σ_{b,d} |n(P e_s) − n(e_t)|^a`` over the whole batch: P is a linear layer to the teacher's width, n batch
    normalisation without parameters (ε = 1e-4), of each by its own statistics.

    Args:
        power: a.

    Shape:
        student [B, D_s], teacher [B, D_t]. A scalar; negative where the embeddings nearly agree.

    Raises:
        TutelageError: the power is not a finite number above 0.

    Published weight: 2, beside cross-entropy at 1 and soft targets at T = 1 with weight 1 (ImageNet, ResNet-34 → 18).

    Miles & Mikolajczyk, "Understanding the Role of the Projector in Knowledge Distillation", 2024, arXiv:2303.11098.
    """

    least_rows = 2  # a single row has no deviation
    project: nn.Module
    student_norm: nn.Module
    teacher_norm: nn.Module
    power: Tensor

    def __init__(self, power: float = 4.0):
        super().__init__()
        if not 0 < power < float("inf"):
            raise TutelageError(f"SRD.power: expected a finite number above 0; found {power}")
        self.register_buffer("power", torch.tensor(float(power)), persistent=False)
        self.outline()

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Makes the projector and both normalisations."""
        self.project = nn.Linear(width(student), width(teacher))
        self.student_norm, self.teacher_norm = (Norm1d(width(teacher), eps=1e-4, affine=False) for _ in range(2))

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the logarithm of the distance, a scalar."""
        check_pair(student, teacher, "SRD", (VECTORS,))
        self.build_once(student, teacher)
        apart = (self.student_norm(self.project(student)) - self.teacher_norm(teacher)).abs()
        return apart.pow(self.power).sum().clamp_min(torch.finfo(apart.dtype).tiny).log()
