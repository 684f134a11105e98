"""What the feature losses share: which pairs go together, one rule for sizes, and parts shaped by the first call.

The house rule for sizes: both maps are average-pooled to the smaller height and the smaller width of the two.
Nothing is cropped, interpolated or repeated, unless the paper's method itself does it; then the docstring says so.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError

Stages = Tensor | Sequence[Tensor]  # one stage of a network, or several
Pairs = list[tuple[Tensor, Tensor]]  # student's and teacher's feature, stage by stage

VECTORS, TOKENS, MAPS = 2, 3, 4  # numbers of dimensions
_KINDS = {VECTORS: "vectors [B, D]", TOKENS: "tokens [B, N, D]", MAPS: "maps [B, C, H, W]"}


def check_pair(student: Tensor, teacher: Tensor, what: str, allowed: Sequence[int]) -> None:
    """Raises unless both are of one kind that the loss can read, of one batch and, if tokens, of one length.

    Args:
        student: the student's feature.
        teacher: the teacher's.
        what: the name of the loss.
        allowed: the kinds that the loss can read, of ``VECTORS``, ``TOKENS`` and ``MAPS``.

    Raises:
        TutelageError: names both shapes.
    """
    found = f"found student {list(student.shape)}, teacher {list(teacher.shape)}"
    if student.ndim != teacher.ndim or student.ndim not in allowed:
        kinds = " or ".join(_KINDS[n] for n in allowed)
        raise TutelageError(f"{what} takes {kinds}, the same for student and teacher; {found}")
    if student.shape[0] != teacher.shape[0]:
        raise TutelageError(f"{what}: student and teacher must have the same batch size; {found}")
    if student.ndim == TOKENS and student.shape[1] != teacher.shape[1]:
        raise TutelageError(f"{what}: student and teacher must have the same number of tokens; {found}")


def stage_pairs(student: Stages, teacher: Stages, what: str, allowed: Sequence[int]) -> Pairs:
    """The features stage by stage, each pair checked by :func:`check_pair`; a tensor alone is one stage.

    Raises:
        TutelageError: the numbers of stages differ, or a pair does not fit; names the shapes.
    """
    students = [student] if isinstance(student, Tensor) else list(student)
    teachers = [teacher] if isinstance(teacher, Tensor) else list(teacher)
    if len(students) != len(teachers) or not students:
        shapes = [[list(stage.shape) for stage in stages] for stages in (students, teachers)]
        raise TutelageError(f"{what} needs as many stages of both; found student {shapes[0]}, teacher {shapes[1]}")
    pairs = list(zip(students, teachers, strict=True))
    for pair in pairs:
        check_pair(*pair, what, allowed)
    return pairs


def width(feature: Tensor) -> int:
    """Channels of a map, last dimension of tokens and vectors."""
    return feature.shape[1 if feature.ndim == MAPS else -1]


def pool_to(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """Adaptive average pooling of [B, C, H, W] to ``size``."""
    height, width = feature.shape[-2:]
    if (height, width) == size:
        return feature
    if height % size[0] == 0 and width % size[1] == 0:  # the same numbers; on CUDA its backward is deterministic
        return F.avg_pool2d(feature, (height // size[0], width // size[1]))
    return F.adaptive_avg_pool2d(feature, size)


def match_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps, each average-pooled to the smaller height and width of both; other features as they are."""
    if first.ndim != MAPS:
        return first, second
    size = min(first.shape[-2], second.shape[-2]), min(first.shape[-1], second.shape[-1])
    return pool_to(first, size), pool_to(second, size)


def pointwise(ndim: int, width_in: int, width_out: int, bias: bool = True) -> nn.Module:
    """An affine map of the channels: a 1×1 convolution for maps, a linear layer for tokens and vectors."""
    return nn.Conv2d(width_in, width_out, 1, bias=bias) if ndim == MAPS else nn.Linear(width_in, width_out, bias=bias)


def connector(student: Tensor, teacher: Tensor) -> nn.Sequential:
    """:func:`pointwise` to the teacher's width without bias, He-initialised by fan-out, and batch normalisation.

    For maps and vectors: the regressor of AB, OFD, SRRL and RepDistiller's FitNet.
    """
    layer = pointwise(student.ndim, width(student), width(teacher), bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
    norm = nn.BatchNorm2d if student.ndim == MAPS else nn.BatchNorm1d
    return nn.Sequential(layer, norm(width(teacher)))


class Lazy(nn.Module):
    """A loss whose learned parts get their shapes from the signals of the first call.

    A subclass assigns its parts in ``build`` and calls ``build_once`` at the start of ``forward``. Until then it has
    no parameters and no state to load, so one call must come before the optimizer is made or a checkpoint is read.

    Attributes:
        built: whether the parts exist.
    """

    built = False

    def build(self, *signals: Any) -> None:
        """Assigns the learned parts."""
        raise NotImplementedError

    def build_once(self, *signals: Any) -> None:
        """``build(*signals)`` at the first call; the module moves to the device and dtype of the first tensor."""
        if self.built:
            return
        self.build(*signals)
        like = _first_tensor(signals)
        self.to(like.device, like.dtype).train(self.training)
        self.built = True


def _first_tensor(signals: Any) -> Tensor:
    return signals if isinstance(signals, Tensor) else _first_tensor(signals[0])
