"""A student of several branches on a common trunk, whose gated ensemble teaches each of them (ONE, Lan et al. 2018)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, Norm1d, width
from tutelage.models.tapped import Tapped, tapped
from tutelage.models.wrapper import Wrapper, paths_of, tried, with_features


def branched(student: nn.Module, others: Sequence[nn.Module], tap: str, input_shape: Sequence[int]) -> Tapped:
    """Returns :class:`Branched` with the student's taps, ``branches`` [B, K − 1, C] and ``ensemble`` [B, C]."""
    own = tapped(student)
    taps = {name: f"student.{path}" for name, path in own.taps.items()}
    net = Branched(own, [tapped(net) for net in others], tap, input_shape)
    return Tapped(net, {**taps, "branches": "branches", "ensemble": "gate"}, maps=own.maps)


class Branched(Wrapper):
    """A student up to a tap, and behind it K branches of the student's form, the first of which is the student's own.

    A gate weighs their logits: ``z_e = Σ g_i z_i``, ``g = softmax(ReLU(BN(W · mean_HW f)))``, f the feature at the tap.
    Only the plain student, trunk and first branch, is written.

    Args:
        student: the tapped student, an ``nn.Sequential`` as all networks of this package.
        others: K − 1 further networks of the same form, of which the parts behind the tap are used.
        tap: the last part that the branches share.
        input_shape: shape of one example.

    Shape:
        [B, …] → [B, C] logits of the first branch.

    Raises:
        TutelageError: the student is no ``nn.Sequential``, there is no such tap, nothing lies behind it, or there is no
            further network.
    """

    def __init__(self, student: Tapped, others: Sequence[Tapped], tap: str, input_shape: Sequence[int]):
        super().__init__(student.net)
        if not others:
            raise TutelageError("ONE: expected one or more further branches; found none (loss.branches)")
        self.paths = paths_of(student, [tap], "ONE")
        parts = [self._parts_behind(net.net, self.paths[0]) for net in others]
        logits, (feature,) = tried(student.net, self.paths, input_shape)
        self.branches = Branches(parts)
        self.gate = Gate(width(feature), len(others) + 1)
        if self.branches(feature)[:, 0].shape != logits.shape:
            raise TutelageError("ONE: all branches must have the student's classes")

    @staticmethod
    def _parts_behind(net: nn.Module, path: str) -> nn.Sequential:
        names = [name for name, _ in net.named_children()]
        first = path.split(".")[0]
        if not isinstance(net, nn.Sequential) or first not in names:
            raise TutelageError(
                f"ONE: {type(net).__name__} can't be cut at {path!r}: it must be an nn.Sequential of named parts, as "
                "the networks of model=resnet20, vgg8, wrn_16_2, cnn … are"
            )
        behind = list(net.children())[names.index(first) + 1 :]
        if path != first or not any(True for part in behind for _ in part.parameters()):
            raise TutelageError(f"ONE: expected a tap of a whole part before the last one, of {names}; found {path!r}")
        return nn.Sequential(*behind)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of the first branch, [B, C]; the others and the ensemble are read by taps."""
        logits, [feature] = with_features(self.student, self.paths, x)
        self.gate(feature, torch.cat([logits[:, None], self.branches(feature)], 1))
        return logits


class Branches(nn.Module):
    """The branches beside the student's own.

    Args:
        parts: what lies behind the trunk, of each.

    Shape:
        feature [B, …] → logits [B, K − 1, C].
    """

    def __init__(self, parts: Sequence[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, feature: Tensor) -> Tensor:
        """Returns the logits of all."""
        return torch.stack([part(feature) for part in self.parts], 1)


class Gate(nn.Module):
    """Weighs the logits of all branches by a softmax of the pooled feature of the trunk.

    Args:
        inputs: width of the feature.
        branches: K.

    Shape:
        feature [B, D] or [B, D, H, W], logits [B, K, C] → [B, C].
    """

    def __init__(self, inputs: int, branches: int):
        super().__init__()
        self.linear, self.norm = nn.Linear(inputs, branches), Norm1d(branches)

    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Returns the ensemble's logits."""
        pooled = feature.mean((2, 3)) if feature.ndim == MAPS else feature
        weights = self.norm(self.linear(pooled)).relu().softmax(1)
        return torch.einsum("bk,bkc->bc", weights, logits)
