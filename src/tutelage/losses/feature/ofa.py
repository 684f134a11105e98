"""One-for-all distillation between unlike networks (Hao et al. 2023): exits from the student's stages."""

from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, Lazy, Norm2d, Pairs, width
from tutelage.losses.logit.ofa import OFA
from tutelage.losses.precision import in_float32


class OFAStages(Lazy):
    """Gives each stage of the student logits of its own, which :class:`~tutelage.losses.logit.ofa.OFA` compares.

    ``Σ_stages OFA(head(f_s), z_t, y)``. The head of stage i of n halves the map n − i times by pairs of separable
    convolutions (3×3 by channel, 1×1, batch normalisation, ReLU, twice), doubling the channels each time but the last,
    whose width is the larger of the networks' embeddings'; the last stage's is a 1×1 convolution to that width. Then
    come the average over positions and a linear layer. The teacher's stages are not read, so it may be of any kind.

    Args:
        num_classes: K.
        eps: ε of the loss.
        temperature: T of the loss.
        stages: the greatest number of stages.

    Shape:
        student: list of maps [B, C, H, W], of its stages; embedding [B, D_t] of the teacher, of which only the width is
        read; teacher [B, K]: its logits; label [B]. A scalar.

    Raises:
        TutelageError: a stage is not a map, or an argument of OFA is out of range.

    Published weight: 1 with ε = 1, T = 1 on all four stages, beside cross-entropy and OFA on the logits at 1
    (CIFAR-100); ε between 1 and 1.5 for ImageNet. The heads for students made of tokens are not here.

    Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation", 2023,
    arXiv:2310.19444.
    """

    over_classes = True
    least_rows = 2  # of the batch normalisation
    heads: nn.ModuleList

    def __init__(self, num_classes: int, eps: float = 1.0, temperature: float = 1.0, stages: int = 8):
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise TutelageError(f"OFAStages.num_classes: expected 1 or more, found {num_classes!r}")
        self.num_classes = num_classes
        self.loss = OFA(eps, temperature)
        self.outline(stages)

    def build(self, pairs: Pairs) -> None:
        """Makes the heads, the last stage's first."""
        last, embedding = pairs[-1]
        final = max(width(last), width(embedding))
        self.heads = nn.ModuleList(
            _head(width(stage), halvings, final, self.num_classes) for halvings, (stage, _) in enumerate(pairs[::-1])
        )

    @in_float32
    def forward(self, student: list[Tensor], embedding: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Returns the sum over stages, a scalar."""
        stages = [student] if isinstance(student, Tensor) else list(student)
        if not stages or any(stage.ndim != MAPS for stage in stages):
            found = [list(stage.shape) for stage in stages]
            raise TutelageError(f"OFAStages takes maps [B, C, H, W] of the student's stages; found {found}")
        self.build_once([(stage, embedding) for stage in stages])
        losses = [self.loss(head(x), teacher, label) for head, x in zip(self.heads, stages[::-1], strict=True)]
        total: Tensor = sum(losses[1:], losses[0])
        return total


def _head(channels: int, halvings: int, final: int, classes: int) -> nn.Sequential:
    layers = nn.Sequential()
    for step in range(halvings):
        after = final if step == halvings - 1 else 2 * channels
        layers.append(_separable(channels, channels, 2)).append(_separable(channels, after, 1))
        channels = after
    if not halvings:
        layers.append(nn.Conv2d(channels, final, 1))
    layers.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(final, classes)])
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return layers


def _separable(before: int, after: int, stride: int) -> nn.Sequential:
    by_channel = nn.Conv2d(before, before, 3, stride, padding=1, groups=before, bias=False)
    return nn.Sequential(by_channel, nn.Conv2d(before, after, 1, bias=False), Norm2d(after), nn.ReLU())
