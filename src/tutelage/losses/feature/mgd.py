"""Masked generative distillation (Yang et al. 2022)."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, Lazy, check_pair, match_size, pointwise, width
from tutelage.losses.precision import check_same_shape, in_float32


class MGD(Lazy):
    """Generates the teacher's whole feature map from the student's masked one.

    ``mean_B Σ_chw (G(M ⊙ A(f_s)) − f_t)²``. A is a 1×1 convolution to the teacher's width, or the identity if the
    widths agree; M is 0 with probability ``ratio``, else 1, drawn from torch's global generator at every call; G is a
    3×3 convolution, ReLU and a 3×3 convolution. Sizes: the size rule of :mod:`tutelage.losses.feature.adapt`.

    Args:
        ratio: λ, the probability of being masked.
        channels: whether whole channels are masked instead of pixels.

    Shape:
        student [B, C_s, H, W], teacher [B, C_t, H', W']. A scalar.

    Raises:
        TutelageError: a ratio outside [0, 1).

    Published weight (the authors' files): for classification with ratio 0.15 and ``channels``, after the last stage,
    7e-5 on ImageNet and 0.0012 on CIFAR-100; for detection 2e-5 with ratio 0.65, on the neck.

    Yang et al., "Masked Generative Distillation", 2022, arXiv:2205.01529.
    """

    ratio: Tensor
    align: nn.Module
    generate: nn.Module

    def __init__(self, ratio: float = 0.5, channels: bool = False):
        super().__init__()
        if not 0 <= ratio < 1:
            raise TutelageError(f"MGD's ratio must be in [0, 1); found {ratio}")
        self.register_buffer("ratio", torch.tensor(float(ratio)), persistent=False)
        self.channels = channels
        self.outline()

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Makes the alignment and the generator."""
        width_in, width_out = width(student), width(teacher)
        self.align = nn.Identity() if width_in == width_out else pointwise(MAPS, width_in, width_out)
        self.generate = nn.Sequential(
            nn.Conv2d(width_out, width_out, 3, padding=1), nn.ReLU(), nn.Conv2d(width_out, width_out, 3, padding=1)
        )

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the distance of the generated map, a scalar."""
        check_pair(student, teacher, "MGD", (MAPS,))
        self.build_once(student, teacher)
        student, teacher = match_size(student, teacher)
        aligned = self.align(student)
        check_same_shape(aligned, teacher, "MGD after its alignment")
        batch, channels, height, width = aligned.shape
        shape = (batch, channels, 1, 1) if self.channels else (batch, 1, height, width)
        kept = torch.rand(shape, device=aligned.device) >= self.ratio
        return (self.generate(aligned * kept) - teacher).square().sum() / batch
