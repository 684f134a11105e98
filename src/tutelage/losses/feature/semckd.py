"""Cross-layer distillation with semantic calibration (Chen et al. 2021)."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, Lazy, Norm2d, Pairs, Stages, match_size, stage_pairs, width
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.sp import unit


class SemCKD(Lazy):
    """Compares every stage of the student with every stage of the teacher, weighted by a learned attention.

    ``Σ_{b,i,j} a_bij · mean_chw (R_ij(s_i) − t_j)²_b / (B · n)``. The attention ``a_bij = softmax_j ⟨q_i, k_j⟩`` is of
    the similarities of example b to all examples of the batch, rows of ``f fᵀ`` of the flattened stage, each through
    two linear layers with a ReLU to a unit vector of a quarter of the batch. R is 1×1, 3×3 and 1×1 convolutions with
    batch normalisation and ReLU between them, twice t_j's channels wide. Sizes: the size rule of
    :mod:`tutelage.losses.feature.adapt`.

    Args:
        batch: the greatest number of examples of a batch; the similarities of a smaller one are filled up with 0.
        stages: the greatest number of stages.

    Shape:
        student and teacher: lists of n maps [B, C, H, W], of any widths and sizes. A scalar.

    Raises:
        TutelageError: a batch is larger than ``batch``, or the numbers of stages differ.

    Published weight: 400, beside cross-entropy at 1 and soft targets at T = 4 with weight 1 (CIFAR-100).

    Chen et al., "Cross-Layer Distillation with Semantic Calibration", 2021, arXiv:2012.03236.
    """

    least_rows = 2  # of the batch normalisation
    queries: nn.ModuleList
    keys: nn.ModuleList
    regressors: nn.ModuleDict

    def __init__(self, batch: int, stages: int = 8):
        super().__init__()
        if not isinstance(batch, int) or batch < 2:
            raise TutelageError(f"SemCKD.batch: expected 2 or more, found {batch!r}")
        self.batch = batch
        self.outline(stages)

    def build(self, pairs: Pairs) -> None:
        """Makes the layers of the attention, and a regressor of each student's stage to each teacher's."""
        self.queries, self.keys = (nn.ModuleList(_embedding(self.batch) for _ in pairs) for _ in range(2))
        widths = [(width(s), width(t)) for s, t in pairs]
        self.regressors = nn.ModuleDict(
            {_name(i, j): _regressor(own, theirs)
             for i, (own, _) in enumerate(widths) for j, (_, theirs) in enumerate(widths)}
        )  # fmt: skip

    @in_float32
    def forward(self, student: Stages, teacher: Stages) -> Tensor:
        """Returns the attended distance, a scalar."""
        pairs = stage_pairs(student, teacher, "SemCKD", (MAPS,))
        if len(pairs[0][0]) > self.batch:
            raise TutelageError(f"SemCKD.batch={self.batch} is below the {len(pairs[0][0])} examples of a batch")
        self.build_once(pairs)
        query = torch.stack([embed(self._similar(s)) for embed, (s, _) in zip(self.queries, pairs, strict=False)], 1)
        key = torch.stack([embed(self._similar(t)) for embed, (_, t) in zip(self.keys, pairs, strict=False)], 1)
        attention = (unit(query) @ unit(key).mT).softmax(2)  # [B, n, n]
        apart = [[self._distance(i, j, s, t) for j, (_, t) in enumerate(pairs)] for i, (s, _) in enumerate(pairs)]
        distances = torch.stack([torch.stack(row, 1) for row in apart], 1)
        return (attention * distances).sum(2).mean()

    def _similar(self, feature: Tensor) -> Tensor:
        rows = feature.flatten(1)
        return nn.functional.pad(rows @ rows.T, (0, self.batch - len(rows)))

    def _distance(self, i: int, j: int, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = match_size(student, teacher)
        return (self.regressors[_name(i, j)](student) - teacher).square().mean((1, 2, 3))


def _name(i: int, j: int) -> str:
    return f"{i}-{j}"


def _embedding(batch: int) -> nn.Sequential:
    units = max(1, batch // 4)
    return nn.Sequential(nn.Linear(batch, 2 * units), nn.ReLU(), nn.Linear(2 * units, units))


def _regressor(before: int, after: int) -> nn.Sequential:
    middle = 2 * after
    return nn.Sequential(
        nn.Conv2d(before, middle, 1, bias=False), Norm2d(middle), nn.ReLU(),
        nn.Conv2d(middle, middle, 3, padding=1, bias=False), Norm2d(middle), nn.ReLU(),
        nn.Conv2d(middle, after, 1, bias=False),
    )  # fmt: skip
