"""Factor transfer (Kim et al. 2018)."""

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, Lazy, check_pair, match_size, width
from tutelage.losses.precision import check_same_shape, in_float32


class FT(Lazy):
    """Matches the student's translated feature to the teacher's paraphrased one.

    ``mean |F_t/‖F_t‖₂ − F_s/‖F_s‖₂|`` over all elements, norms by example. ``F_t = E(f_t)`` is the output of the
    encoder of the paraphraser, an autoencoder of the teacher's maps (three 3×3 convolutions, then three transposed
    ones, each with LeakyReLU 0.1, k·C_t channels in the middle), ``F_s = T(f_s)`` that of the student's translator,
    built like the encoder. Without batch normalisation, as in the authors' code. Factors of different sizes are pooled
    by the size rule of :mod:`tutelage.losses.feature.adapt`.

    The paraphraser is trained first, in a phase of its own (:meth:`prepare`); the student's gradient does not reach it.
    The state_dict records whether it is trained, so a resumed run does not repeat the phase.

    Args:
        rate: k, channels of a factor over channels of the teacher.
        epochs: epochs of the paraphraser's phase, by SGD with momentum 0.9 and weight decay 5e-4.
        lr: learning rate of that phase.

    Shape:
        student [B, C_s, H, W], teacher [B, C_t, H', W']. A scalar.

    Raises:
        TutelageError: an argument is out of range; ``forward`` is called with gradients before :meth:`prepare`.

    Published weight: 500 (the authors, CIFAR), on the last map. RepDistiller's 200 is for another quantity, the
    distance of the factors' attention maps. The phase is RepDistiller's: 30 epochs on the augmented training images, at
    0.01 for ResNet and WRN students (VGG: 0.05); the authors use 5 epochs of L1 at 0.1.

    Kim et al., "Paraphrasing Complex Network: Network Compression via Factor Transfer", 2018, arXiv:1802.04977.
    """

    encoder: nn.Module
    decoder: nn.Module
    translator: nn.Module
    prepared = False

    def __init__(self, rate: float = 0.5, epochs: int = 30, lr: float = 0.01):
        super().__init__()
        if not 0 < rate <= 1:
            raise TutelageError(f"FT's rate must be in (0, 1]; found {rate}")
        if epochs < 1 or not 0 < lr < float("inf"):
            raise TutelageError(
                f"FT's paraphraser needs at least one epoch and lr > 0 and finite; found {epochs} and {lr}"
            )
        self.rate, self.epochs, self.lr = rate, epochs, lr
        self.outline()

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Makes the paraphraser, which only :meth:`prepare` trains, and the translator."""
        channels = width(teacher)
        factors = max(1, round(channels * self.rate))
        self.encoder = _layers(nn.Conv2d, (channels, channels, factors, factors)).requires_grad_(False)
        self.decoder = _layers(nn.ConvTranspose2d, (factors, factors, channels, channels)).requires_grad_(False)
        self.translator = _layers(nn.Conv2d, (width(student), width(student), factors, factors))

    @in_float32
    def reconstruction(self, teacher: Tensor) -> Tensor:
        """Returns the paraphraser's training loss, ``mean (D(E(f_t)) − f_t)²``, a scalar."""
        return F.mse_loss(self.decoder(self.encoder(teacher)), teacher)

    def prepare(self, examples: Callable[[int], Iterable[Mapping[str, Tensor]]]) -> None:
        """Trains the paraphraser unless a trained one was loaded from a checkpoint.

        Args:
            examples: epoch → batches with ``teacher``.

        Raises:
            TutelageError: ``forward`` has not been called yet, or the loss became infinite or NaN.
        """
        if self.prepared:
            return
        if not self.built:
            raise TutelageError("FT's paraphraser has no shape before the first call of forward")
        paraphraser = nn.ModuleList([self.encoder, self.decoder]).requires_grad_()
        optimizer = torch.optim.SGD(paraphraser.parameters(), self.lr, momentum=0.9, weight_decay=5e-4)
        with torch.enable_grad():
            for epoch in range(self.epochs):
                for batch in examples(epoch):
                    optimizer.zero_grad()
                    loss = self.reconstruction(batch["teacher"])
                    loss.backward()
                    optimizer.step()
        if not loss.isfinite():
            raise TutelageError(f"FT's paraphraser ended at a loss of {loss.item()}; its lr is {self.lr}")
        paraphraser.requires_grad_(False)
        self.prepared = True

    def get_extra_state(self) -> dict[str, bool]:
        """Returns whether the paraphraser has been trained."""
        return {"prepared": self.prepared}

    def set_extra_state(self, state: Any) -> None:
        """Restores from a checkpoint whether the paraphraser has been trained."""
        self.prepared = state["prepared"]

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the distance of the factors, a scalar."""
        check_pair(student, teacher, "FT", (MAPS,))
        self.build_once(student, teacher)
        if self.training and torch.is_grad_enabled() and not self.prepared:
            raise TutelageError("FT's paraphraser is not trained: call prepare with the teacher's maps first")
        factor, target = match_size(self.translator(student), self.encoder(teacher))
        check_same_shape(factor, target, "FT's factors")
        return F.l1_loss(F.normalize(factor.flatten(1)), F.normalize(target.flatten(1)))


def _layers(convolution: type[nn.Conv2d | nn.ConvTranspose2d], widths: tuple[int, ...]) -> nn.Sequential:
    layers = nn.Sequential()
    for before, after in pairwise(widths):
        layers.append(convolution(before, after, 3, padding=1)).append(nn.LeakyReLU(0.1))
    return layers
