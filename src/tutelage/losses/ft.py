"""Factor transfer (Kim et al. 2018)."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.adapt import MAPS, Lazy, check_pair, match_size, width
from tutelage.losses.precision import check_same_shape, in_float32


class FT(Lazy):
    """The student's feature, translated, should equal the teacher's, paraphrased.

    ``mean |F_t/‖F_t‖₂ − F_s/‖F_s‖₂|`` over all elements, the norm over all of an example's. ``F_t = E(f_t)`` comes from
    the encoder of an autoencoder of the teacher's maps, the paraphraser (three 3×3 convolutions, then three transposed
    ones, each with LeakyReLU 0.1, k·C_t channels in the middle), ``F_s = T(f_s)`` from the student's translator, built
    like the encoder. Without batch normalisation, as the authors released it. Factors of different sizes are pooled by
    the house rule of :mod:`tutelage.losses.adapt`.

    Two phases: train the paraphraser by ``pretrain_loss(teacher)``, whose gradient reaches nothing else; then
    :meth:`freeze`; then train the student by ``forward``, whose gradient does not reach the paraphraser. Whether it is
    frozen is part of the state_dict, so a resumed run knows its phase.

    Args:
        rate: k, channels of a factor over channels of the teacher.

    Shape:
        student [B, C_s, H, W], teacher [B, C_t, H', W']. A scalar.

    Raises:
        TutelageError: a rate outside (0, 1]; or a gradient is asked of ``forward`` before :meth:`freeze`.

    Published weight: 500 (the authors, CIFAR). RepDistiller's 200 belongs to another quantity, the distance of the
    factors' attention maps.

    Paraphrasing Complex Network: Network Compression via Factor Transfer, arXiv:1802.04977.
    """

    encoder: nn.Module
    decoder: nn.Module
    translator: nn.Module
    frozen = False

    def __init__(self, rate: float = 0.5):
        super().__init__()
        if not 0 < rate <= 1:
            raise TutelageError(f"FT's rate must be in (0, 1]; found {rate}")
        self.rate = rate

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Makes the paraphraser and the translator."""
        channels = width(teacher)
        factors = max(1, round(channels * self.rate))
        self.encoder = _layers(nn.Conv2d, (channels, channels, factors, factors))
        self.decoder = _layers(nn.ConvTranspose2d, (factors, factors, channels, channels))
        self.translator = _layers(nn.Conv2d, (width(student), width(student), factors, factors))

    @in_float32
    def pretrain_loss(self, teacher: Tensor) -> Tensor:
        """``mean (D(E(f_t)) − f_t)²``, a scalar; after the first call of ``forward``, before :meth:`freeze`."""
        if not self.built or self.frozen:
            state = "is frozen" if self.frozen else "has no shape before the first call of forward"
            raise TutelageError(f"FT's paraphraser {state}; found teacher {list(teacher.shape)}")
        return F.mse_loss(self.decoder(self.encoder(teacher)), teacher)

    def freeze(self) -> None:
        """Ends the first phase: from here on the paraphraser does not change."""
        self.set_extra_state({"frozen": True})

    def get_extra_state(self) -> dict[str, bool]:
        """Which phase it is."""
        return {"frozen": self.frozen}

    def set_extra_state(self, state: Any) -> None:
        """Takes up the phase of a checkpoint."""
        self.frozen = state["frozen"]
        if self.frozen and not self.built:
            raise TutelageError("FT has no paraphraser to freeze before the first call of forward")
        if self.built:
            self.encoder.requires_grad_(not self.frozen)
            self.decoder.requires_grad_(not self.frozen)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The distance of the factors, a scalar."""
        check_pair(student, teacher, "FT", (MAPS,))
        self.build_once(student, teacher)
        if torch.is_grad_enabled() and not self.frozen:
            raise TutelageError("FT's paraphraser must be trained by pretrain_loss and then frozen; found it unfrozen")
        factor, target = match_size(self.translator(student), self.encoder(teacher))
        check_same_shape(factor, target, "FT's factors")
        return F.l1_loss(F.normalize(factor.flatten(1)), F.normalize(target.flatten(1)))


def _layers(convolution: type[nn.Conv2d | nn.ConvTranspose2d], widths: tuple[int, ...]) -> nn.Sequential:
    layers = nn.Sequential()
    for before, after in pairwise(widths):
        layers.append(convolution(before, after, 3, padding=1)).append(nn.LeakyReLU(0.1))
    return layers
