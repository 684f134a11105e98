"""A student with classifiers at its inner stages, which learn from its own last one (BYOT, Zhang et al. 2019)."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError, nearest
from tutelage.losses.feature.adapt import MAPS, Norm2d
from tutelage.models.tapped import Tapped, tapped
from tutelage.models.wrapper import Wrapper, paths_of, tried, with_features


def with_exits(
    student: nn.Module, input_shape: Sequence[int], taps: Sequence[str] | None = None, form: str = "bottleneck"
) -> Tapped:
    """Returns :class:`WithExits` with the student's taps, ``exits`` [B, K, C] and ``exit_features`` [B, K, D]."""
    own = tapped(student)
    known = {name: f"student.{path}" for name, path in own.taps.items()}
    net = WithExits(own, input_shape, taps, form)
    return Tapped(net, {**known, "exits": "exits[0]", "exit_features": "exits[1]"}, maps=own.maps)


class WithExits(Wrapper):
    """A student with an exit, a small head of convolutions and a classifier, at each of its stages before the last.

    ``bottleneck``: 1×1 convolution to a quarter of the last feature's width D, k×k with stride k, 1×1 to D, each with
    batch normalisation and ReLU, then the mean over positions and a linear classifier; k is the stage's size over the
    last one's. ``attention``: the map is multiplied by σ of a separable convolution of stride 2 with batch
    normalisation and ReLU, scaled up by 2; then a separable convolution for each stage that follows, to its width and
    size; mean and classifier as before. Only the plain student is written.

    Args:
        student: the tapped student, with maps of its stages and a tap ``embedding``, its last feature.
        input_shape: shape of one image, [C, H, W].
        taps: stages that get an exit; None: all its maps but the last.
        form: of the heads.

    Shape:
        [B, C, H, W] → [B, K] logits of the last exit, the student's own.

    Raises:
        TutelageError: an unknown form, no stage before the last, or one that is no map.
    """

    def __init__(
        self, student: Tapped, input_shape: Sequence[int], taps: Sequence[str] | None = None, form: str = "bottleneck"
    ):
        super().__init__(student.net)
        if form not in _HEADS:
            raise TutelageError(f"BYOT: found form {form!r}; {nearest(form, _HEADS)}")
        chosen = list(student.maps[:-1] if taps is None else taps)
        if not chosen or not student.maps:
            raise TutelageError(
                f"BYOT: {type(student.net).__name__} has no stage before its last one to put an exit at; its maps are "
                f"{student.maps} (loss.exits names taps)"
            )
        for tap in chosen:
            if tap not in student.maps:
                raise TutelageError(f"BYOT: {tap!r} is no stage of the student; {nearest(tap, student.maps)}")
        self.paths = paths_of(student, chosen, "BYOT")
        every = paths_of(student, [*student.maps, "embedding"], "BYOT")
        logits, (*stages, last) = tried(student.net, every, input_shape)
        for tap, stage in zip(student.maps, stages, strict=True):
            if stage.ndim != MAPS:
                raise TutelageError(f"BYOT: expected maps [B, C, H, W] at tap {tap!r}; found {list(stage.shape)}")
        heads = [_HEADS[form](stages[student.maps.index(tap) :], last.shape[1]) for tap in chosen]
        self.exits = Exits(heads, last.shape[1], logits.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """Returns the student's logits, [B, K]; those of the exits are read by taps."""
        logits, maps = with_features(self.student, self.paths, x)
        self.exits(maps)
        return logits


class Exits(nn.Module):
    """Heads, each with a linear classifier.

    Args:
        heads: map → feature [B, D].
        inputs: D.
        classes: C.

    Shape:
        maps, one for each head → logits [B, K, C], features [B, K, D].
    """

    def __init__(self, heads: Sequence[nn.Module], inputs: int, classes: int):
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.classifiers = nn.ModuleList(nn.Linear(inputs, classes) for _ in heads)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns logits and features of all exits."""
        features = [head(x) for head, x in zip(self.heads, maps, strict=True)]
        logits = [classifier(x) for classifier, x in zip(self.classifiers, features, strict=True)]
        return torch.stack(logits, 1), torch.stack(features, 1)


def bottleneck(stages: Sequence[Tensor], width: int) -> nn.Module:
    """Returns the head of the paper.

    Args:
        stages: maps of the stage it is put at, which its shape must fit, and of those behind.
        width: of the feature.
    """
    own = stages[0]
    inner, factor = max(1, width // 4), max(1, own.shape[-1] // stages[-1].shape[-1])
    return nn.Sequential(
        *_normalised(nn.Conv2d(own.shape[1], inner, 1, bias=False)),
        *_normalised(nn.Conv2d(inner, inner, factor, factor, bias=False)),
        *_normalised(nn.Conv2d(inner, width, 1, bias=False)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def attention(stages: Sequence[Tensor], width: int) -> nn.Module:
    """Returns the head with an attention gate; arguments as of :func:`bottleneck`."""
    layers: list[nn.Module] = [Attended(stages[0].shape[1])]
    for before, stage in pairwise(stages):
        layers += separable(before.shape[1], stage.shape[1], max(1, before.shape[-1] // stage.shape[-1]))
    channels = stages[-1].shape[1]
    ending = [] if channels == width else _normalised(nn.Conv2d(channels, width, 1, bias=False))
    return nn.Sequential(*layers, *ending, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Attended(nn.Module):
    """A map times a gate in (0, 1) at each of its elements.

    Args:
        channels: of the map.

    Shape:
        [B, C, H, W] → the same.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gate = nn.Sequential(*separable(channels, channels, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the map times its gate."""
        gate = F.interpolate(self.gate(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return x * gate.sigmoid()


def separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """Returns the layers of a separable convolution: 3×3 of each channel, 1×1, batch normalisation and ReLU, twice."""
    return [
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        *_normalised(nn.Conv2d(inputs, inputs, 1, bias=False)),
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        *_normalised(nn.Conv2d(inputs, outputs, 1, bias=False)),
    ]


def _normalised(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, Norm2d(convolution.out_channels), nn.ReLU()]


_HEADS: dict[str, Callable[[Sequence[Tensor], int], nn.Module]] = {
    "bottleneck": bottleneck,
    "attention": attention,
}
