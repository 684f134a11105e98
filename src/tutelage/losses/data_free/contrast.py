"""The term by which Contrastive Model Inversion makes images that differ from all others (Fang et al. 2021)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.data_free.rounds import RoundLoss
from tutelage.losses.feature.adapt import Lazy, pooled, width
from tutelage.losses.logits import checked_temperature
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.sp import unit


class InstanceContrast(Lazy, RoundLoss):
    """Makes an image differ from all others: InfoNCE of a part of it with the whole, against a bank of earlier images.

    ``f`` is an image's mean of each channel over its places, of all layers; ``u = h(f) / ‖h(f)‖``, where h is a linear
    layer, a ReLU and a linear layer, which learns. Rows are the B images and up to ``negatives`` drawn from the bank:

    ``mean_{i ≤ B} ℓ_i + mean_{i > B} ℓ_i``, ``ℓ_i = −log (exp(u_i·v_i / T) / Σ_j exp(u_i·v_j / T))``,

    u of parts, v of wholes, which have no gradient. With an empty bank the second mean is left out. After a round the
    bank takes the features of its best images and drops the oldest beyond ``size``; it is part of the state. (The
    authors' code finds no row in a bank that is exactly full.)

    Args:
        dim: width of u; published: 256, or 128 as the code's default.
        temperature: T; published: 0.1 on CIFAR-10, 0.2 on CIFAR-100.
        size: of the bank, images.
        negatives: how many of them a step compares with.

    Shape:
        part, whole: lists of [B, C_l, …], from the two views of the same images. A scalar.

    Raises:
        TutelageError: an argument is out of range, or the views have no layers or other shapes.

    Published weight: 0.8.

    Fang et al., "Contrastive Model Inversion for Data-Free Knowledge Distillation", 2021, arXiv:2105.08584.
    """

    temperature: Tensor
    bank: Tensor
    head: nn.Module

    def __init__(self, dim: int = 256, temperature: float = 0.1, size: int = 40960, negatives: int = 4096):
        super().__init__()
        for name, value in {"dim": dim, "size": size, "negatives": negatives}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TutelageError(f"InstanceContrast.{name} must be a whole number of at least 1; found {value!r}")
        self.dim, self.size, self.negatives = dim, size, negatives
        self.register_buffer("temperature", checked_temperature(temperature, "InstanceContrast"), persistent=False)
        self.register_buffer("bank", torch.zeros(0, 0), persistent=False)  # [n, 2D], grows: saved as extra state
        self._last: Tensor | None = None  # features of the last images
        self._best: Tensor | None = None
        self.outline()

    def build(self, part: Tensor, whole: Tensor) -> None:
        """Makes h for features [B, D]."""
        features = width(part)
        self.head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, self.dim))

    @in_float32
    def forward(self, part: Sequence[Tensor], whole: Sequence[Tensor]) -> Tensor:
        """Returns the contrast, a scalar."""
        if not part or [one.shape for one in part] != [one.shape for one in whole]:
            shapes = [[list(one.shape) for one in view] for view in (part, whole)]
            raise TutelageError(f"InstanceContrast: expected both views' layers, at least one; found {shapes}")
        own = [torch.cat([pooled(feature) for feature in view], 1) for view in (part, whole)]
        self.build_once(*own)
        self._last = torch.cat(own, 1).detach()
        count, chosen = len(own[0]), torch.randperm(len(self.bank), device=self.bank.device)[: self.negatives]
        rows = own
        if len(chosen):
            kept = self.bank[chosen].to(own[0]).chunk(2, 1)
            rows = [torch.cat(pair) for pair in zip(own, kept, strict=True)]
        u, v = (unit(self.head(one)) for one in rows)
        likeness = u @ v.detach().mT / self.temperature
        each = F.cross_entropy(likeness, torch.arange(len(u), device=u.device), reduction="none")
        return each.mean() if len(each) == count else each[:count].mean() + each[count:].mean()

    def on_best(self) -> None:
        """Notes the last images' features."""
        self._best = self._last

    def on_round_end(self) -> None:
        """Takes the features that were noted into the bank."""
        if self._best is not None:
            earlier = self.bank.to(self._best) if len(self.bank) else self._best[:0]
            self.bank, self._best = torch.cat([earlier, self._best])[-self.size :], None

    def get_extra_state(self) -> Tensor:
        """Returns the bank."""
        return self.bank

    def set_extra_state(self, state: Tensor) -> None:
        """Takes a bank over."""
        self.bank = state.to(self.bank.device)
