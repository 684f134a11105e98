"""Overhaul of feature distillation (Heo et al. 2019)."""

import math

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, VECTORS, Lazy, Pairs, Stages, connector, pool_to, stage_pairs, width
from tutelage.losses.precision import check_same_shape, in_float32


class OFD(Lazy):
    """The student's pre-activations should equal the teacher's where those say something.

    ``Σ_i 2^{i−n} mean_B Σ_chw (r(s) − t')² where r(s) > t' or t > 0``, with ``t' = max(t, m)``, for stages i = 1…n, so
    the last has factor 1 and each one before it half as much. t and s are taken before the ReLU; m, one a channel, is
    what the teacher's channel says when it is silent (:func:`margin`). r is a 1×1 convolution (a linear layer for
    vectors) and batch normalisation. The teacher's map is brought to the size of the student's, larger or smaller, by
    adaptive average pooling, as in mdistiller; the authors' pairs are of one size.

    Args:
        stages: how many pairs of stages the first call may bring.

    Shape:
        student [B, C_s, H, W] or [B, C_s]; teacher [B, C_t, H', W'] or [B, C_t]; bn_weight and bn_bias [C_t], the
        parameters of the batch normalisation that t comes out of; or four lists, stage by stage. A scalar.

    Raises:
        TutelageError: a pair, or a teacher and its parameters, do not fit; names the shapes.

    Published weight, cross-entropy at 1: 0.001 for CIFAR-100 (the authors and mdistiller), 0.0001 for ImageNet
    (mdistiller).

    A Comprehensive Overhaul of Feature Distillation, arXiv:1904.01866.
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
        """The margin-masked distance summed over the stages, a scalar."""
        pairs = stage_pairs(student, teacher, "OFD", (MAPS, VECTORS))
        margins = [margin(*parameters) for parameters in _affine(bn_weight, bn_bias, pairs)]
        self.build_once(pairs)
        losses = [
            _stage(connect, silent, *pair) / 2 ** (len(pairs) - 1 - i)
            for i, (connect, silent, pair) in enumerate(zip(self.connectors, margins, pairs, strict=True))
        ]
        return torch.stack(losses).sum()


def margin(weight: Tensor, bias: Tensor) -> Tensor:
    """``E[x | x < 0]`` of x ~ N(bias, weight²): ``bias − |weight| φ(z)/Φ(−z)``, z = bias/|weight|.

    At weight 0 it is the limit, ``min(bias, 0)``. The authors' code takes −3|weight| instead where x < 0 has a
    probability under 0.001: a channel whose margin then hardly matters.
    """
    spread = weight.abs().clamp_min(torch.finfo(weight.dtype).tiny ** 0.5)
    hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(bias / spread / math.sqrt(2))  # φ(z)/Φ(−z), without underflow
    return (bias - spread * hazard).clamp_max(0)


def _affine(weight: Stages, bias: Stages, pairs: Pairs) -> Pairs:
    """The parameters stage by stage, each [C] of its teacher."""
    weights, biases = ([x] if isinstance(x, Tensor) else list(x) for x in (weight, bias))
    widths = [[width(teacher)] for _, teacher in pairs]
    for name, found in (("bn_weight", weights), ("bn_bias", biases)):
        if [list(x.shape) for x in found] != widths:
            raise TutelageError(f"OFD needs {name} of shapes {widths}; found {[list(x.shape) for x in found]}")
    return list(zip(weights, biases, strict=True))


def _stage(connect: nn.Module, silent: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    student = connect(student)
    if teacher.ndim == MAPS:
        teacher = pool_to(teacher, (student.shape[-2], student.shape[-1]))
    check_same_shape(student, teacher, "OFD after its connector")
    target = teacher.maximum(silent[:, None, None] if teacher.ndim == MAPS else silent)
    matters = (student > target) | (teacher > 0)
    return torch.where(matters, student - target, 0.0).square().sum() / len(student)
