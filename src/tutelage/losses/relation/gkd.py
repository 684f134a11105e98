"""Graph knowledge distillation: graphs of the examples of a batch (Lassance et al. 2020)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.sp import flat_rows, unit


def stage_rows(
    student: Tensor | Sequence[Tensor], teacher: Tensor | Sequence[Tensor], what: str
) -> list[tuple[Tensor, Tensor]]:
    """Returns the rows [B, D_s] and [B, D_t] of each stage; a tensor is one stage.

    Raises:
        TutelageError: the numbers of stages differ, or a pair of them does not match.
    """
    own, theirs = ([x] if isinstance(x, Tensor) else list(x) for x in (student, teacher))
    if len(own) != len(theirs) or not own:
        raise TutelageError(f"{what}: {len(own)} stages of the student and {len(theirs)} of the teacher")
    return [flat_rows(s, t, what) for s, t in zip(own, theirs, strict=True)]


class GKD(Loss):
    """Matches the similarity graph of a batch's examples to the teacher's, stage by stage.

    ``mean_stages Σ_ij (A^s − A^t)²_ij`` with ``A = (D^-½ S D^-½)^p``, S [B, B] the cosine similarities of the flattened
    signals with diagonal 0, D the sums of its rows. The sum runs over all B² entries. A negative similarity counts
    as 0: the authors' features are not negative, and a negative sum of a row would have no root.
    Invariant to a rotation or a rescaling of either signal and to the order of the batch; 0 at B = 1.

    Under DDP each rank compares the examples of its own slice of the batch only.

    Args:
        neighbours: k: only edges to one of the k most similar examples of either end, in the teacher's graph, are kept
            in both, before rows are summed; None: all.
        power: p, the number of steps along edges that are compared.

    Shape:
        student [B, …], teacher [B, …], of any sizes after B, or lists of such stages. Returns a scalar.

    Published weight: 25 with cross-entropy at 1 (CIFAR-10, three stages).

    Lassance et al., "Deep Geometric Knowledge Distillation with Graphs", 2020, arXiv:1911.03080.

    Raises:
        TutelageError: an argument is below 1.
    """

    least_rows = 2  # one example has no edges

    def __init__(self, neighbours: int | None = None, power: int = 1):
        super().__init__()
        for name, value in (("neighbours", neighbours), ("power", power)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise TutelageError(f"GKD.{name} must be a whole number of at least 1; found {value!r}")
        self.neighbours, self.power = neighbours, power

    @in_float32
    def forward(self, student: Tensor | Sequence[Tensor], teacher: Tensor | Sequence[Tensor]) -> Tensor:
        """Returns the squared distance of the graphs, averaged over stages: a scalar."""
        return torch.stack([self._distance(s, t) for s, t in stage_rows(student, teacher, "GKD")]).mean()

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        own, theirs = _similarities(student), _similarities(teacher)
        if self.neighbours is not None and self.neighbours < len(theirs):
            near = torch.zeros_like(theirs).scatter(1, theirs.topk(self.neighbours).indices, 1.0)
            near = torch.maximum(near, near.T)
            own, theirs = own * near, theirs * near
        return (self._walks(own) - self._walks(theirs)).square().sum()

    def _walks(self, similarity: Tensor) -> Tensor:
        degree = similarity.sum(1)
        root = degree.masked_fill(degree == 0, torch.inf).rsqrt()
        return torch.linalg.matrix_power(root[:, None] * similarity * root, self.power)


def _similarities(rows: Tensor) -> Tensor:
    rows = unit(rows)
    near = (rows @ rows.T).clamp(min=0)
    return near * (1 - torch.eye(len(rows), dtype=near.dtype, device=near.device))
