"""Mixes each training image with another one, as mixup and CutMix do, as a pure function of (seed, view, key).

The partner comes from the whole training set and not from the batch: so a teacher, a student, a cache, a resumed run
and any number of ranks see the same picture.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy.special import betaincinv
from torch import Tensor

from tutelage.data.chance import Views, drawn
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

_BITS = 16  # shares come from 65,536 quantiles of their distribution
_DRAWS = 6  # partner, whether, which of the two, share, and the box's centre


class Mix:
    """Mixup (Zhang et al. 2018, arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899) of training images.

    With λ ~ Beta(a, a) mixup gives λ·x + (1 − λ)·x'; CutMix puts a box of the partner x' into x, of √(1 − λ) of its
    height and width and around a uniform centre, cut off at the edges, after which λ is the share that is left of x.
    The label is λ·y + (1 − λ)·y' of one-hot y. Both images are augmented before; x' is an example of the training set,
    drawn uniformly, that has a label if x has one.

    Args:
        mixup: a of mixup's λ; 0: no mixup.
        cutmix: a of CutMix's λ; 0: no CutMix.
        probability: probability that an image is mixed at all.
        switch: probability of CutMix where both are on.

    Raises:
        TutelageError: an argument is out of range, or both are off.
    """

    def __init__(self, mixup: float = 0.2, cutmix: float = 1.0, probability: float = 1.0, switch: float = 0.5):
        for name, value in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= value < float("inf"):
                raise TutelageError(f"data.mix.{name} must be 0 or more; found {value}")
        for name, value in (("probability", probability), ("switch", switch)):
            if not 0 <= value <= 1:
                raise TutelageError(f"data.mix.{name} must be in [0, 1]; found {value}")
        if not mixup and not cutmix:
            raise TutelageError("data.mix: mixup and cutmix are both 0; without either data.mix=null")
        self.mixup, self.cutmix, self.probability = mixup, cutmix, probability
        self.switch = 0.0 if not cutmix else 1.0 if not mixup else switch

    def of(self, keys: Tensor, labels: Tensor, classes: int, seed: int) -> "Mixing":
        """Returns the mixing of one training set.

        Args:
            keys: [n] of the set.
            labels: [n] of the set, −100 for none.
            classes: number of them.
            seed: the run's.
        """
        known = labels >= 0
        shares = torch.stack([_quantiles(self.mixup), _quantiles(self.cutmix)])
        return Mixing(self, seed, classes, keys[known], keys[~known], shares)


@dataclass(frozen=True, eq=False)
class Mixing:
    """:class:`Mix` for one training set.

    Args:
        how: the probabilities.
        seed: the run's.
        classes: number of them.
        labelled: [n] keys of the examples with a label.
        bare: [m] keys of the examples without.
        shares: [2, 65536] quantiles of λ of mixup and of CutMix.
    """

    how: Mix
    seed: int
    classes: int
    labelled: Tensor
    bare: Tensor
    shares: Tensor

    def moved(self, to: Callable[[Tensor], Tensor]) -> "Mixing":
        """Returns the same with ``to`` applied to each tensor."""
        return replace(self, labelled=to(self.labelled), bare=to(self.bare), shares=to(self.shares))

    def chance(self, keys: Tensor, view: int | Views) -> Tensor:
        """Returns the random numbers [B, 6] of view ``view`` of the examples ``keys`` [B], or of each its own."""
        return drawn(self.seed, "mix", keys, view, _DRAWS)

    def partners(self, labels: Tensor, chance: Tensor) -> Tensor:
        """Returns the keys [B] of the examples that those with ``labels`` [B] are mixed with."""
        pools = (self.labelled, self.bare) if len(self.bare) else (self.labelled, self.labelled)
        labelled, bare = (_drawn(chance[:, 0], pool) for pool in pools)
        return torch.where(labels >= 0, labelled, bare)

    def __call__(
        self, images: Tensor, others: Tensor, labels: Tensor, other_labels: Tensor, chance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mixes a batch.

        Args:
            images: [B, C, H, W], augmented.
            others: [B, C, H, W], likewise of the partners.
            labels: [B], −100 for none.
            other_labels: [B], of the partners.
            chance: [B, 6], of :meth:`chance`.

        Returns:
            [B, C, H, W]; the label with the larger share [B]; the mixed label [B, C], zeros where there is none.
        """
        _, whether, which, drawn, down, right = chance.unbind(1)
        cut = which < self.how.switch
        share = self.shares[cut.long(), (drawn * (1 << _BITS)).long()]
        share = torch.where(whether < self.how.probability, share, 1.0)
        inside = _boxes(share, down, right, images.shape[-2], images.shape[-1])
        share = torch.where(cut, 1 - inside.float().mean((1, 2)), share)
        own = torch.where(cut[:, None, None], (~inside).float(), share[:, None, None])[:, None]
        mixed = torch.where(own == 1, images, own * images + (1 - own) * others)  # an image that stays keeps its bits
        known = (labels >= 0)[:, None]
        classes = torch.arange(self.classes, device=labels.device)  # one_hot looks for labels beyond them, and waits
        mine, theirs = ((one.clamp(min=0)[:, None] == classes).float() for one in (labels, other_labels))
        soft = (share[:, None] * mine + (1 - share[:, None]) * theirs) * known
        label = torch.where(labels >= 0, torch.where(share >= 0.5, labels, other_labels), NO_LABEL)
        return mixed, label, soft


def _drawn(chance: Tensor, pool: Tensor) -> Tensor:
    return pool[(chance * (1 << 24)).long() * len(pool) >> 24]  # uniform() gives 24 bits


def _quantiles(a: float) -> Tensor:
    """Returns the quantiles [65536] of Beta(a, a) at the middles of as many equal parts; ones for a = 0."""
    count = 1 << _BITS
    if not a:
        return torch.ones(count)
    return torch.from_numpy(betaincinv(a, a, (torch.arange(count, dtype=torch.float64).numpy() + 0.5) / count)).float()


def _boxes(share: Tensor, down: Tensor, right: Tensor, height: int, width: int) -> Tensor:
    """Returns which pixels [B, H, W] lie in a box of 1 − ``share`` of the area around a centre, cut off at edges."""
    side = (1 - share).sqrt()
    inside = []
    for place, size in ((down, height), (right, width)):
        length, centre = (side * size).long(), (place * size).long()
        at = torch.arange(size, device=share.device)
        low, high = (centre - length // 2)[:, None], (centre + length // 2)[:, None]  # as the authors round it
        inside.append((at >= low) & (at < high))
    return inside[0][:, :, None] & inside[1][:, None, :]
