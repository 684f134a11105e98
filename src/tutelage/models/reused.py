"""A student that uses its teacher's classifier (SimKD, Chen et al. 2022, arXiv:2203.14001)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError, nearest
from tutelage.losses.feature.adapt import MAPS, VECTORS, check_pair, match_size, pool_to, width
from tutelage.models.places import place
from tutelage.models.tapped import Tapped, tapped


def reused(student: nn.Module, teacher: nn.Module, tap: str, input_shape: Sequence[int], reduction: int = 2) -> Tapped:
    """Returns a :class:`ReusedClassifier` with the student's taps and ``projected`` and ``classifier``."""
    own = tapped(student)
    taps = {name: f"backbone.{path}" for name, path in own.taps.items()}
    net = ReusedClassifier(own, tapped(teacher), tap, input_shape, reduction)
    return Tapped(net, {**taps, "projected": "projector", "classifier": "classifier"}, maps=own.maps)


class ReusedClassifier(nn.Module):
    """``W_t · mean_HW P(f_s) + b_t``: the student's feature, projected to the teacher's width, and its classifier.

    For maps P is a bottleneck of convolutions, 1×1, 3×3, 1×1, the inner width ``C_t // reduction``, each followed by
    batch normalisation and ReLU; for vectors it is a linear layer. A map larger than the teacher's is first pooled to
    its size. The classifier is the teacher's and frozen. Student parameters that do not affect the feature are
    frozen too, and the student's own classifier is removed.

    Args:
        student: the tapped student.
        teacher: a network with the teacher's shapes.
        tap: tap of the feature, in both networks.
        input_shape: shape of the images, [C, H, W].
        reduction: the bottleneck's inner width is the teacher's divided by this; the authors use 2.

    Shape:
        [B, C, H, W] → [B, K] logits.

    Raises:
        TutelageError: there is no such tap, or the features or the teacher's classifier do not match.
    """

    def __init__(self, student: Tapped, teacher: Tapped, tap: str, input_shape: Sequence[int], reduction: int = 2):
        super().__init__()
        if reduction < 1:
            raise TutelageError(f"SimKD's reduction must be at least 1; found {reduction}")
        images = torch.zeros(2, *input_shape)
        feature = _output(student, tap, images, "student")
        with torch.no_grad():
            target = _output(teacher, tap, images, "teacher")
        check_pair(feature, target, "SimKD", (MAPS, VECTORS))
        if "classifier" not in teacher.taps:
            raise TutelageError(f"SimKD: the teacher {type(teacher.net).__name__} has no tap 'classifier' to reuse")
        _check_whole(teacher, "classifier")
        theirs: nn.Linear = teacher.net.get_submodule(teacher.taps["classifier"])  # type: ignore[assignment]
        if theirs.weight.shape[1:] != (width(target),):
            raise TutelageError(
                f"SimKD: the teacher's classifier, of weight {list(theirs.weight.shape)}, does not read its tap "
                f"{tap!r}, {list(target.shape)}: set loss.tap to what its classifier takes the mean of"
            )
        self.backbone, self.path = student.net, student.taps[tap]
        self.size: tuple[int, int] | None = None
        if feature.ndim == MAPS:
            matched = match_size(feature, target)[0]
            self.size = matched.shape[2], matched.shape[3]
        self.projector = projector(feature, width(target), reduction)
        self.classifier = nn.Linear(width(target), len(theirs.weight), bias=theirs.bias is not None)
        self.classifier.requires_grad_(False)
        _leave_out(self.backbone, feature, student.taps.get("classifier"))
        self.backbone.get_submodule(self.path).register_forward_hook(_keep)

    def on_sources_ready(self, sources: Mapping[str, Any]) -> None:
        """Copies the classifier of the source ``teacher``.

        Raises:
            TutelageError: that source is not a network.
        """
        net = sources["teacher"].network() if "teacher" in sources else None
        if net is None:
            raise TutelageError("SimKD reuses the classifier of a network: it needs sources=frozen")
        self.classifier.load_state_dict(net.net.get_submodule(net.taps["classifier"]).state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [B, K]."""
        self.backbone(x)
        feature = self.backbone.get_submodule(self.path).__dict__.pop("_feature")
        if self.size is None:
            return self.classifier(self.projector(feature))
        return self.classifier(self.projector(pool_to(feature, self.size)).mean((2, 3)))


def projector(feature: Tensor, channels: int, reduction: int) -> nn.Module:
    """Returns the projector P from a feature of this shape to ``channels``."""
    if feature.ndim != MAPS:
        return nn.Linear(width(feature), channels)
    inner = max(1, channels // reduction)
    return nn.Sequential(
        *_block(width(feature), inner, 1), *_block(inner, inner, 3), *_block(inner, channels, 1)
    )  # fmt: skip


def _block(width_in: int, width_out: int, kernel: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(width_out), nn.ReLU()


def _keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    module.__dict__["_feature"] = output  # separate from a tap's output, which may be of the same module


def _output(tapped: Tapped, tap: str, images: Tensor, role: str) -> Tensor:
    """Returns the output of the tap's submodule for ``images``, in eval mode."""
    if tap not in tapped.taps:
        raise TutelageError(
            f"SimKD: no tap {tap!r} (loss.tap) in the {role} {type(tapped.net).__name__}; {nearest(tap, tapped.taps)}"
        )
    _check_whole(tapped, tap)
    kept: list[Tensor] = []
    handle = tapped.net.get_submodule(tapped.taps[tap]).register_forward_hook(lambda _, __, out: kept.append(out))
    tapped.eval()(images)
    handle.remove()
    tapped.train()
    return kept[0]


def _check_whole(tapped: Tapped, tap: str) -> None:
    """Refuses a tap that is an element of a submodule's output or its input: a student is cut at submodules."""
    found = place(tapped.net, tapped.taps[tap])
    if found.of_input or found.elements:
        raise TutelageError(
            f"SimKD: tap {tap!r} of {type(tapped.net).__name__} is {tapped.taps[tap]!r}; expected the whole output "
            "of a submodule, without .input or [i]"
        )


def _leave_out(net: nn.Module, feature: Tensor, classifier: str | None) -> None:
    """Freezes parameters that ``feature`` does not depend on, and removes the student's classifier."""
    parameters = list(net.parameters())
    for parameter, found in zip(
        parameters, torch.autograd.grad(feature.sum(), parameters, allow_unused=True), strict=True
    ):
        parameter.requires_grad_(found is not None)
    if classifier and not any(p.requires_grad for p in net.get_submodule(classifier).parameters()):
        net.set_submodule(classifier, nn.Identity())
