"""Features of vision transformers (Yang et al. 2024)."""

import math

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import TOKENS, Lazy, Pairs, stage_pairs, width
from tutelage.losses.precision import in_float32


class ViTKD(Lazy):
    """Mimics the teacher's shallow layers, and generates its last one from the student's masked one.

    ``Σ_low ‖L s − t‖² / B · α + ‖M ⊙ (G(x) − t_high)‖² / (B · λ) · β``. L are linear layers to the teacher's width,
    none if the widths agree. x is the student's last layer through such a layer, with a share λ of its tokens, drawn
    for each example from torch's global generator, replaced by a learned token; M is 1 at these. G is a 3×3
    convolution, ReLU and a 3×3 convolution over the tokens' square. A class token in front is left out of all.

    Args:
        low: α.
        high: β.
        ratio: λ, the share of masked tokens.
        stages: the greatest number of layers.

    Shape:
        student, teacher: lists of tokens [B, N, D]: the shallow layers and, last, the deep one, N = n² or n² + 1. A
        scalar.

    Raises:
        TutelageError: an argument is out of range, there are fewer than two layers, or the tokens are no square.

    Published weight: α = 3e-5, β = 3e-6, λ = 0.5 on the first two layers and the last, beside cross-entropy at 1
    (DeiT III, ImageNet); the authors add :class:`~tutelage.losses.logit.nkd.NKD` for their best figures.

    Yang et al., "ViTKD: Feature-based Knowledge Distillation for Vision Transformers", 2024, arXiv:2209.02432.
    """

    mimic: nn.ModuleList
    deep: nn.ModuleDict
    low: Tensor
    high: Tensor

    def __init__(self, low: float = 3e-5, high: float = 3e-6, ratio: float = 0.5, stages: int = 8):
        super().__init__()
        if not 0 < ratio < 1 or not all(0 <= weight < math.inf for weight in (low, high)):
            raise TutelageError(
                "ViTKD: expected finite weights of at least 0 and a ratio in (0, 1); "
                f"found low={low}, high={high}, ratio={ratio}"
            )
        self.register_buffer("low", torch.tensor(float(low)), persistent=False)
        self.register_buffer("high", torch.tensor(float(high)), persistent=False)
        self.ratio = ratio
        self.outline(stages)

    def build(self, pairs: Pairs) -> None:
        """Makes the linear layers, the learned token and the generator."""
        *shallow, (student, teacher) = pairs
        self.mimic = nn.ModuleList(_aligned(width(s), width(t)) for s, t in shallow)
        dim = width(teacher)
        convolutions = (nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, dim, 3, padding=1))
        self.deep = nn.ModuleDict(
            {"align": _aligned(width(student), dim), "token": _Token(dim), "generate": nn.Sequential(*convolutions)}
        )

    @in_float32
    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        """Returns the weighted sum of both parts, a scalar."""
        pairs = [(_patches(s), _patches(t)) for s, t in stage_pairs(student, teacher, "ViTKD", (TOKENS,))]
        if len(pairs) < 2:
            raise TutelageError(f"ViTKD needs shallow layers and a deep one; found {len(pairs)} in all")
        self.build_once(pairs)
        *shallow, (s_deep, t_deep) = pairs
        batch = len(s_deep)
        near = [(layer(s) - t).square().sum() for layer, (s, t) in zip(self.mimic, shallow, strict=False)]
        return self.low * torch.stack(near).sum() / batch + self.high * self._generated(s_deep, t_deep) / batch

    def _generated(self, student: Tensor, teacher: Tensor) -> Tensor:
        batch, count, _ = student.shape
        kept = int(count * (1 - self.ratio))
        chance = torch.rand(batch, count, device=student.device)
        hidden = chance.argsort(1).argsort(1) >= kept  # the smallest are kept
        filled = torch.where(hidden[..., None], self.deep["token"](), self.deep["align"](student))
        side = math.isqrt(count)
        maps = filled.mT.unflatten(2, (side, side))
        found = self.deep["generate"](maps).flatten(2).mT
        return ((found - teacher) * hidden[..., None]).square().sum() / self.ratio


class _Token(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(dim))

    def forward(self) -> Tensor:
        return self.value


def _aligned(before: int, after: int) -> nn.Module:
    return nn.Identity() if before == after else nn.Linear(before, after)


def _patches(tokens: Tensor) -> Tensor:
    """Returns tokens [B, n², D]; of n² + 1 the first, a class token, is left out."""
    count = tokens.shape[1]
    for first in (0, 1):
        if count > first and math.isqrt(count - first) ** 2 == count - first:
            return tokens[:, first:]
    raise TutelageError(f"ViTKD needs n² tokens, or one more; found {list(tokens.shape)}")
