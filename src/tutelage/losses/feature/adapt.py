"""Shared parts of the feature losses: pairing of stages, the size rule, learned parts with lazy shapes.

The size rule: both maps are average-pooled to the smaller height and the smaller width of the two.
Nothing is cropped, interpolated or repeated unless the published method does so, which the docstring then states.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.compat.torch import BatchNorm
from tutelage.errors import TutelageError
from tutelage.losses.base import Loss

Stages = Tensor | Sequence[Tensor]  # one stage of a network, or several
Pairs = list[tuple[Tensor, Tensor]]  # student's and teacher's feature, stage by stage

VECTORS, TOKENS, MAPS = 2, 3, 4  # numbers of dimensions
_KINDS = {VECTORS: "vectors [B, D]", TOKENS: "tokens [B, N, D]", MAPS: "maps [B, C, H, W]"}


def check_pair(student: Tensor, teacher: Tensor, what: str, allowed: Sequence[int]) -> None:
    """Checks that two features are of the same kind, batch size and, for tokens, length, and that the loss accepts it.

    Args:
        student: the student's feature.
        teacher: the teacher's feature.
        what: name of the loss.
        allowed: accepted kinds, of ``VECTORS``, ``TOKENS`` and ``MAPS``.

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
    """Returns the features stage by stage, each pair checked by :func:`check_pair`; a single tensor is one stage.

    Raises:
        TutelageError: the numbers of stages differ or a pair does not match; names the shapes.
    """
    students = [student] if isinstance(student, Tensor) else list(student)
    teachers = [teacher] if isinstance(teacher, Tensor) else list(teacher)
    if len(students) != len(teachers) or not students:
        shapes = [[list(stage.shape) for stage in stages] for stages in (students, teachers)]
        raise TutelageError(
            f"{what} needs the same number of stages of both; found student {shapes[0]}, teacher {shapes[1]}"
        )
    pairs = list(zip(students, teachers, strict=True))
    for pair in pairs:
        check_pair(*pair, what, allowed)
    return pairs


def width(feature: Tensor) -> int:
    """Returns the channels of a map [B, C, H, W], or the last dimension of tokens [B, N, D] and vectors [B, D]."""
    return feature.shape[1 if feature.ndim == MAPS else -1]


def pool_to(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """Pools [B, C, H, W] to ``size``, smaller or larger, by adaptive averages."""
    height, width = feature.shape[-2:]
    if (height, width) == size:
        return feature
    if height % size[0] == 0 and width % size[1] == 0:  # equal values, but its CUDA backward is deterministic
        return F.avg_pool2d(feature, (height // size[0], width // size[1]))
    return F.adaptive_avg_pool2d(feature, size)


def match_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two maps average-pooled to the smaller height and width of both; other features unchanged."""
    if first.ndim != MAPS:
        return first, second
    size = min(first.shape[-2], second.shape[-2]), min(first.shape[-1], second.shape[-1])
    return pool_to(first, size), pool_to(second, size)


def pooled(feature: Tensor) -> Tensor:
    """Returns [B, D]: the mean of a map over its positions, of tokens over the sequence; vectors as they are."""
    if feature.ndim == MAPS:
        return feature.mean((2, 3))
    return feature.mean(1) if feature.ndim == TOKENS else feature


def pointwise(ndim: int, width_in: int, width_out: int, bias: bool = True) -> nn.Module:
    """Returns an affine map of the channels: a 1×1 convolution for maps, a linear layer for tokens and vectors."""
    return nn.Conv2d(width_in, width_out, 1, bias=bias) if ndim == MAPS else nn.Linear(width_in, width_out, bias=bias)


class _LoneRow(BatchNorm):
    """Batch normalisation that accepts a batch of one example.

    A single value per channel has no variance: it is normalised by the running statistics, which stay unchanged.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises as torch does if a channel has more than one value, else by the running statistics."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class Norm1d(_LoneRow, nn.BatchNorm1d):
    """Batch normalisation of vectors [B, D] that accepts a batch of one example."""


class Norm2d(_LoneRow, nn.BatchNorm2d):
    """Batch normalisation of maps [B, C, H, W] that accepts a batch of one example."""


def connector(student: Tensor, teacher: Tensor) -> nn.Sequential:
    """Returns :func:`pointwise` to the teacher's width without bias, He-initialised by fan-out, and a batch norm.

    The regressor of AB, OFD, SRRL and RepDistiller's FitNet, for maps and vectors.
    """
    layer = pointwise(student.ndim, width(student), width(teacher), bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
    norm = Norm2d if student.ndim == MAPS else Norm1d
    return nn.Sequential(layer, norm(width(teacher)))


class Lazy(Loss):
    """Base of losses whose learned parts take their shapes from the signals of the first call.

    A subclass assigns its parts in ``build``, calls ``outline`` at the end of ``__init__`` and ``build_once`` at the
    start of ``forward``. Until the first call its parameters are torch's ``UninitializedParameter``: an optimizer
    created from them earlier trains the parts, and a state dict loaded earlier is applied at the first call.

    Attributes:
        built: whether the parts exist.
    """

    built = False
    outlined_stages: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.waiting = _Waiting({})

    def build(self, *signals: Any) -> None:
        """Assigns the learned parts, all of them modules."""
        raise NotImplementedError

    def outline(self, stages: int | None = None) -> None:
        """Creates the uninitialised parameters of the parts that ``build`` will make.

        Args:
            stages: the greatest number of pairs of features; None if ``build`` takes a single student's and teacher's.

        Raises:
            TutelageError: ``stages`` is not an integer of 1 or more.
        """
        if stages is not None and (not isinstance(stages, int) or stages < 1):
            raise TutelageError(f"{type(self).__name__}.stages: expected 1 or more, found {stages!r}")
        self.outlined_stages = stages
        before = self._part_names()
        # The widths differ so that parts skipped for equal widths exist too; on "meta" no random numbers are drawn.
        pair = torch.empty(1, 1, 1, 1, device="meta"), torch.empty(1, 2, 1, 1, device="meta")
        with torch.device("meta"):
            self.build(*pair) if stages is None else self.build([pair] * stages)
        outlined = {name: p.requires_grad for name, p in self.named_parameters() if name.split(".")[0] not in before}
        for name in self._part_names() - before:
            delattr(self, name)
        self.waiting = _Waiting(outlined)

    def _part_names(self) -> set[str]:
        return {name for name, _ in self.named_modules(remove_duplicate=False) if name and "." not in name}

    def build_once(self, *signals: Any) -> None:
        """Calls ``build(*signals)`` at the first call and moves the parts to the first tensor's device and dtype.

        Raises:
            TutelageError: there are more stages than ``outline`` was called with.
        """
        if self.built:
            return
        if self.outlined_stages is not None and (found := len(signals[0])) > self.outlined_stages:
            name = type(self).__name__
            raise TutelageError(
                f"{name} expects at most {self.outlined_stages} stages, found {found}; use {name}(stages={found})"
            )
        waiting = self.waiting
        del self.waiting
        self.build(*signals)
        like = _first_tensor(signals)
        self.to(like.device, like.dtype).train(self.training)
        self.built = True
        waiting.become(self)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not self.built:
            destination.update({prefix + name: value for name, value in self.waiting.state.items()})

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        if self.built:
            super()._load_from_state_dict(state_dict, prefix, *others)
            return
        given = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        own = {prefix + name: value for name, value in given.items() if "." not in name}
        super()._load_from_state_dict(own, prefix, *others)
        self.waiting.state = {name: value.detach().clone() for name, value in given.items() if "." in name}


class _Waiting(nn.Module):
    """Holds the uninitialised parameters of a :class:`Lazy` loss and a state dict that was loaded for them.

    Args:
        outlined: parameter's name → whether it requires a gradient.
    """

    def __init__(self, outlined: Mapping[str, bool]):
        super().__init__()
        self.state: dict[str, Tensor] = {}
        for name, learns in outlined.items():
            self.register_parameter(_without_dots(name), nn.UninitializedParameter(requires_grad=learns))  # type: ignore[arg-type]

    @torch.no_grad()
    def become(self, loss: nn.Module) -> None:
        """Replaces the loss's parameters by these, with their shapes and values; unused ones are dropped."""
        own = dict(self.named_parameters(recurse=False))
        for name, made in list(loss.named_parameters()):
            if (parameter := own.get(_without_dots(name))) is not None:
                parameter.materialize(made.shape, made.device, made.dtype)  # type: ignore[attr-defined]
                parameter.copy_(made)
                owner, _, leaf = name.rpartition(".")
                loss.get_submodule(owner).register_parameter(leaf, parameter)
        if self.state:
            given = {name: value for name, value in loss.state_dict().items() if "." not in name}
            loss.load_state_dict(given | self.state)

    def _save_to_state_dict(self, *arguments: Any) -> None:
        """Saves nothing: the loss itself saves what was loaded."""

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Loads nothing: the loss itself keeps the given state."""


def _without_dots(name: str) -> str:
    """Returns a parameter's qualified name without dots, which ``register_parameter`` refuses."""
    return name.replace(".", "/")


def _first_tensor(signals: Any) -> Tensor:
    return signals if isinstance(signals, Tensor) else _first_tensor(signals[0])
