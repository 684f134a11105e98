"""Knowledge diffusion (Huang et al. 2023)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, VECTORS, Lazy, Norm2d, check_pair, match_size, width
from tutelage.losses.logits import constant
from tutelage.losses.precision import in_float32

_TIMES = 1000  # steps of the noise, β from 1e-4 to 0.02


class DiffKD(Lazy):
    """Denoises the student's feature by a diffusion model of the teacher's, then compares the two.

    ``mean (P(x_0) − h)² + λ_d · mean (ε̂(√ᾱ_τ h + √(1 − ᾱ_τ) ε, τ) − ε)² + λ_r · mean (D(E(f_t)) − f_t)²``. E and D,
    affine in the channels, E with batch normalisation, are an autoencoder of the teacher, ``h = E(f_t)`` is detached.
    The second term trains the diffusion model ε̂ on noise ε ~ N(0, 1) of a random step τ of 1,000,
    ``ᾱ_τ = Π_{u≤τ} (1 − β_u)``, β linear from 1e-4 to 0.02. The student's feature, mapped to the width of h by an
    affine A, gets noise that the adapter γ chooses for each example, ``x = γ A(f_s) + (1 − γ) ε``, and is denoised by
    ``steps`` steps of DDIM (η = 0) over the lower half of the times, from 500 − 500 / steps to 0. P is affine. ε̂ adds
    an embedding of τ and has two residual bottlenecks of a quarter of the width and an affine output with batch
    normalisation; γ has one bottleneck of an eighth, an average over the positions and a softmax of two.
    Vectors are maps of one position, for which ε̂ and γ are plain layers, as in the authors' code.

    Random numbers are drawn from torch's global generator at every call. Sizes: the size rule of
    :mod:`tutelage.losses.feature.adapt`.

    Args:
        channels: width of h; None: half of the teacher's; 0: no autoencoder, h = f_t.
        steps: of DDIM, a divisor of 500.
        diffusion: λ_d.
        reconstruction: λ_r.

    Shape:
        student [B, C_s, H, W], teacher [B, C_t, H', W'], or [B, D] each. A scalar.

    Raises:
        TutelageError: an argument is out of range.

    Published (the authors' code): 5 steps, half of the channels. The weights are ours, 1 each: the authors' code leaves
    the sum of its three terms to the caller.

    Huang et al., "Knowledge Diffusion for Distillation", 2023, arXiv:2305.15712.
    """

    least_rows = 2  # of the batch normalisation
    encoder: nn.Module
    decoder: nn.Module
    align: nn.Module
    noise: nn.Module
    adapter: nn.Module
    project: nn.Module
    times: nn.Embedding
    diffusion: Tensor
    reconstruction: Tensor
    kept: Tensor

    def __init__(
        self, channels: int | None = None, steps: int = 5, diffusion: float = 1.0, reconstruction: float = 1.0
    ):
        super().__init__()
        if channels is not None and (not isinstance(channels, int) or channels < 0):
            raise TutelageError(f"DiffKD.channels: expected a whole number of at least 0 or null, found {channels!r}")
        if not isinstance(steps, int) or steps < 1 or (_TIMES // 2) % steps:
            raise TutelageError(f"DiffKD.steps: expected a divisor of {_TIMES // 2}, found {steps!r}")
        self.channels, self.steps = channels, steps
        self.register_buffer("diffusion", constant(diffusion, "DiffKD.diffusion", low=0.0), persistent=False)
        weight = constant(reconstruction, "DiffKD.reconstruction", low=0.0)
        self.register_buffer("reconstruction", weight, persistent=False)
        kept = (1 - torch.linspace(1e-4, 0.02, _TIMES, dtype=torch.float64)).cumprod(0)
        self.register_buffer("kept", kept, persistent=False)
        self.outline()

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Makes the autoencoder, the diffusion model, the noise adapter and the projections."""
        whole = width(teacher)
        hidden = max(1, whole // 2) if self.channels is None else self.channels or whole
        self.encoder = nn.Identity() if self.channels == 0 else _affine(whole, hidden)
        self.decoder = nn.Identity() if self.channels == 0 else nn.Conv2d(hidden, whole, 1)
        self.align, self.project = nn.Conv2d(width(student), hidden, 1), nn.Conv2d(hidden, hidden, 1)
        self.times = nn.Embedding(_TIMES, hidden)
        self.noise = _of_map(hidden) if student.ndim == MAPS else _of_vector(hidden)
        eyes = _Bottleneck(hidden, 8) if student.ndim == MAPS else _affine(hidden, 2 * hidden, hidden)
        self.adapter = nn.Sequential(eyes, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(hidden, 2), nn.Softmax(1))

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the sum of the three terms, a scalar."""
        check_pair(student, teacher, "DiffKD", (MAPS, VECTORS))
        self.build_once(student, teacher)
        student, teacher = match_size(student, teacher)
        if student.ndim == VECTORS:
            student, teacher = student[..., None, None], teacher[..., None, None]
        hidden = self.encoder(teacher)
        rebuilt = F.mse_loss(self.decoder(hidden), teacher)
        hidden = hidden.detach()
        apart = F.mse_loss(self.project(self.denoised(self.align(student))), hidden)
        return apart + self.diffusion * self._noise_error(hidden) + self.reconstruction * rebuilt

    def denoised(self, feature: Tensor) -> Tensor:
        """Returns the feature [B, C, H, W] with the adapter's noise, after the steps of DDIM."""
        share = self.adapter(feature)[:, :1, None, None]
        x = share * feature + (1 - share) * torch.randn_like(feature)
        stride = _TIMES // (2 * self.steps)
        kept = self.kept.to(x.dtype)
        for number in reversed(range(self.steps)):
            now, after = kept[number * stride], kept[(number - 1) * stride] if number else kept.new_ones(())
            noise = self._noise(x, torch.full((1,), number * stride, device=x.device))
            x = after.sqrt() * (x - (1 - now).sqrt() * noise) / now.sqrt() + (1 - after).sqrt() * noise
        return x

    def _noise_error(self, hidden: Tensor) -> Tensor:
        noise = torch.randn_like(hidden)
        time = torch.randint(_TIMES, (len(hidden),), device=hidden.device)
        kept = self.kept.to(hidden.dtype)[time, None, None, None]
        return F.mse_loss(self._noise(kept.sqrt() * hidden + (1 - kept).sqrt() * noise, time), noise)

    def _noise(self, x: Tensor, time: Tensor) -> Tensor:
        found: Tensor = self.noise(x + self.times(time)[..., None, None])
        return found


class _Bottleneck(nn.Module):
    """``x + BN(conv1(ReLU(BN(conv3(ReLU(BN(conv1(x))))))))``, narrower inside."""

    def __init__(self, channels: int, narrower: int):
        super().__init__()
        inner = max(1, channels // narrower)
        self.block = nn.Sequential(
            nn.Conv2d(channels, inner, 1), Norm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1), Norm2d(inner), nn.ReLU(), *_affine(inner, channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Returns [B, C, H, W] for [B, C, H, W]."""
        out: Tensor = x + self.block(x)
        return out


def _affine(*widths: int) -> nn.Sequential:
    """Returns 1×1 convolutions of these widths, each with batch normalisation, ReLU between them."""
    layers = nn.Sequential()
    for place, (before, after) in enumerate(pairwise(widths)):
        layers.extend([nn.ReLU()] * bool(place) + [nn.Conv2d(before, after, 1), Norm2d(after)])
    return layers


def _of_map(channels: int) -> nn.Sequential:
    return nn.Sequential(_Bottleneck(channels, 4), _Bottleneck(channels, 4), *_affine(channels, channels))


def _of_vector(channels: int) -> nn.Sequential:
    wide = 4 * channels
    first, second = _affine(channels, wide, channels), _affine(channels, wide)
    return nn.Sequential(*first, *second, nn.ReLU(), nn.Conv2d(wide, channels, 1))
