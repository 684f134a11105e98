"""Overhaul of feature distillation (Heo et al. 2019)."""

import math

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, VECTORS, Lazy, Pairs, Stages, connector, pool_to, stage_pairs, width
from tutelage.losses.precision import check_same_shape, in_float32


class OFD(Lazy):
    """Matches pre-activations through a margin ReLU, except where both are inactive.

    ``Σ_i 2^{i−n} mean_B Σ_chw (r(s) − t')² where r(s) > t' or t > 0``, with ``t' = max(t, m)``, for stages i = 1…n: the
    last has factor 1, each earlier one half of the next. t and s are taken before the ReLU; m, one per channel, is the
    teacher's expected negative pre-activation (:func:`margin`). r is a 1×1 convolution (a linear layer for vectors) and
    batch normalisation. The teacher's map is resized to the student's by adaptive average pooling, as in mdistiller;
    the authors' pairs have equal sizes.

    Args:
        stages: the greatest number of pairs of stages.

    Shape:
        student [B, C_s, H, W] or [B, C_s]; teacher [B, C_t, H', W'] or [B, C_t]; bn_weight and bn_bias [C_t], the
        parameters of the batch normalisation whose output is t; or four lists, stage by stage. A scalar.

    Raises:
        TutelageError: a pair, or a teacher and its parameters, do not match; names the shapes.

    Published weight, cross-entropy at 1: 0.001 for CIFAR-100 (the authors and mdistiller), 0.0001 for ImageNet
    (mdistiller).

    Heo et al., "A Comprehensive Overhaul of Feature Distillation", 2019, arXiv:1904.01866.
    """

    connectors: nn.ModuleList

    def __init__(self, stages: int = 5):
        super().__init__()
        self.outline(stages)

    def build(self, pairs: Pairs) -> None:
        """Makes a connector for each stage."""
        self.connectors = nn.ModuleList(connector(s, t) for s, t in pairs)

    @in_float32
    def forward(self, student: Stages, teacher: Stages, bn_weight: Stages, bn_bias: Stages) -> Tensor:
        """Returns the margin-masked distance summed over the stages, a scalar."""
        pairs = stage_pairs(student, teacher, "OFD", (MAPS, VECTORS))
        margins = [margin(*parameters) for parameters in _affine(bn_weight, bn_bias, pairs)]
        self.build_once(pairs)
        losses = [
            _stage(connect, lowest, *pair) / 2 ** (len(pairs) - 1 - i)
            for i, (connect, lowest, pair) in enumerate(zip(self.connectors, margins, pairs, strict=True))
        ]
        return torch.stack(losses).sum()


def margin(weight: Tensor, bias: Tensor) -> Tensor:
    """Returns ``E[x | x < 0]`` of x ~ N(bias, weight²): ``bias − |weight| φ(z)/Φ(−z)``, z = bias/|weight|; [C].

    At weight 0 it is the limit, ``min(bias, 0)``. The authors' code uses −3|weight| instead if x < 0 has a
    probability below 0.001, where the margin hardly matters.
    """
    spread = weight.abs().clamp_min(torch.finfo(weight.dtype).tiny ** 0.5)
    hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(bias / spread / math.sqrt(2))  # φ(z)/Φ(−z), without underflow
    return (bias - spread * hazard).clamp_max(0)


def _affine(weight: Stages, bias: Stages, pairs: Pairs) -> Pairs:
    """Returns the batch normalisations' parameters stage by stage, each [C_t]."""
    weights, biases = ([x] if isinstance(x, Tensor) else list(x) for x in (weight, bias))
    widths = [[width(teacher)] for _, teacher in pairs]
    for name, found in (("bn_weight", weights), ("bn_bias", biases)):
        if [list(x.shape) for x in found] != widths:
            raise TutelageError(f"OFD needs {name} of shapes {widths}; found {[list(x.shape) for x in found]}")
    return list(zip(weights, biases, strict=True))


def _stage(connect: nn.Module, lowest: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    student = connect(student)
    if teacher.ndim == MAPS:
        teacher = pool_to(teacher, (student.shape[-2], student.shape[-1]))
    check_same_shape(student, teacher, "OFD after its connector")
    target = teacher.maximum(lowest[:, None, None] if teacher.ndim == MAPS else lowest)
    counted = (student > target) | (teacher > 0)
    return torch.where(counted, student - target, 0.0).square().sum() / len(student)
