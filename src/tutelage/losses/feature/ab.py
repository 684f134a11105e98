"""Activation boundaries (Heo et al. 2019)."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, VECTORS, Lazy, Pairs, Stages, connector, match_size, stage_pairs, width
from tutelage.losses.precision import check_same_shape, in_float32


class AB(Lazy):
    """Matches activation boundaries: a squared hinge on pre-activations, so that the same neurons are active in both.

    ``Σ_i 2^{i−n} mean_B Σ_chw [(x + m)² where x > −m and t ≤ 0; (x − m)² where x ≤ m and t > 0]``, x = r(s), for stages
    i = 1…n: the last has factor 1, each earlier one half of the next. t and s are taken before the ReLU. r is a
    1×1 convolution (a linear layer for vectors) and batch normalisation, or the identity if the widths agree.
    Sizes: the size rule of :mod:`tutelage.losses.feature.adapt`.

    Args:
        margin: m.
        stages: the greatest number of pairs of stages.

    Shape:
        student [B, C, H, W] or [B, D], or a list of such stages; teacher the same but for C, H, W, D. A scalar.

    Raises:
        TutelageError: a margin that is not above 0.

    Published weight: 0.003 (the authors and RepDistiller, CIFAR, three stages), alone, in a phase before the training
    by labels or soft targets.

    Heo et al., "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons", 2019,
    arXiv:1811.03233.
    """

    margin: Tensor
    connectors: nn.ModuleList

    def __init__(self, margin: float = 1.0, stages: int = 5):
        super().__init__()
        if not 0 < margin < float("inf"):
            raise TutelageError(f"AB's margin must be above 0 and finite; found {margin}")
        self.register_buffer("margin", torch.tensor(float(margin)), persistent=False)
        self.outline(stages)

    def build(self, pairs: Pairs) -> None:
        """Makes a connector for each stage."""
        self.connectors = nn.ModuleList(nn.Identity() if width(s) == width(t) else connector(s, t) for s, t in pairs)

    @in_float32
    def forward(self, student: Stages, teacher: Stages) -> Tensor:
        """Returns the boundary loss summed over the stages, a scalar."""
        pairs = stage_pairs(student, teacher, "AB", (MAPS, VECTORS))
        self.build_once(pairs)
        losses = [
            self._stage(connect, *match_size(*pair)) / 2 ** (len(pairs) - 1 - i)
            for i, (connect, pair) in enumerate(zip(self.connectors, pairs, strict=True))
        ]
        return torch.stack(losses).sum()

    def _stage(self, connect: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
        student = connect(student)
        check_same_shape(student, teacher, "AB after its connector")
        active = teacher.detach().relu().sign()  # 1 where t > 0, else 0; faster than a mask on a CPU
        return (student * (1 - 2 * active) + self.margin).relu().square().sum() / len(student)
