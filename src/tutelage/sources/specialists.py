"""Combines a generalist and specialists for the classes that it confuses into one teacher."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.sources.base import Source
from tutelage.types import Batch, Signals

log = logging.getLogger(__name__)

TOLERANCE = 1e-6  # nats
_STEPS = 1000
_FLOOR = 1e-300  # replaces a probability of 0, in proportion to which nothing could be distributed


class Specialists(Source):
    """Combines a generalist and specialists into the distribution that is nearest to all their predictions.

    A specialist m has its classes S_m and one dustbin for all others: p_m is the softmax of its C logits with the
    others' probabilities summed (:class:`tutelage.losses.logit.dustbin.Dustbin` trains it). A specialist is active if
    its classes include one of the ``top`` most probable classes of the generalist. The teacher's q minimises
    ``KL(p_g ‖ q) + Σ_{m active} KL(p_m ‖ q_m)``, q_m being q with the classes outside S_m summed; without an active
    specialist it is p_g. The signal is log q; a temperature is applied by the loss.

    Args:
        generalist: source of logits of all C classes.
        specialists: sources of such logits, one per group; ``tutelage distill`` trains them and fills them in.
        groups: the classes of each specialist. ``None`` in a config means that ``tutelage distill`` finds them;
            without specialists, as in its dry run, the source returns the generalist's logits.
        top: n of the paper.

    Raises:
        TutelageError: not one group for each specialist, or an argument is out of range.

    Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531, section 5 (n = 1).
    """

    asks_host = True  # the number of EM steps depends on the values

    def __init__(
        self,
        generalist: Source,
        specialists: Sequence[Source] = (),
        groups: Sequence[Sequence[int]] | None = None,
        top: int = 1,
    ):
        super().__init__()
        if type(top) is not int or top < 1:
            raise TutelageError(f"specialists: top must be a whole number of at least 1; found {top!r}")
        self.generalist, self.specialists = generalist, nn.ModuleList(specialists)
        if specialists and len(specialists) != len(groups or []):
            raise TutelageError(f"{len(specialists)} specialists need {len(specialists)} groups; found {groups}")
        self.groups, self.top, self.worst = groups, top, 0.0

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Requests the logits of the generalist and of all specialists.

        Raises:
            TutelageError: other signals are read.
        """
        if extra := sorted(set(needs) - {"logits"}):
            raise TutelageError(f"specialists have logits only; the objective also reads {extra} of them")
        for member in (self.generalist, *self.specialists):
            member.attach({"logits"}, sources)

    def forward(self, batch: Batch) -> Signals:
        """Returns log q [B, C], to be used as logits.

        Raises:
            TutelageError: ``groups`` are invalid for C classes.
        """
        logits = self.generalist(batch)["logits"].float()
        if self.groups is None:
            return {"logits": logits}
        inside = membership(self.groups, logits.shape[1]).to(logits.device)
        if not self.specialists:
            return {"logits": logits}
        special = torch.stack([member(batch)["logits"].float() for member in self.specialists])
        found, gap = combine_experts(logits, special, inside, self.top)
        self.worst = max(self.worst, float(gap.max()))
        return {"logits": found.to(logits.dtype)}

    def verify(self) -> None:
        """Verifies all networks, and warns if the combination did not reach its minimum."""
        for member in (self.generalist, *self.specialists):
            member.verify()
        warn(self.worst)


def membership(groups: Sequence[Sequence[int]], classes: int) -> Tensor:
    """Returns [M, C] bool: whether each class is in each group.

    Raises:
        TutelageError: no group; an unknown or repeated class in a group; a group of no or of all classes.
    """
    if not groups or not all(isinstance(group, Sequence) for group in groups):
        raise TutelageError(f"specialists: groups are lists of classes, such as [[0, 6], [5, 7, 9]]; found {groups}")
    inside = torch.zeros(len(groups), classes, dtype=torch.bool)
    for row, group in zip(inside, groups, strict=True):
        known = all(type(c) is int and 0 <= c < classes for c in group)
        if not known or len({*group}) < len(group) or not 0 < len(group) < classes:
            raise TutelageError(
                f"specialists: a group must be distinct classes of 0 to {classes - 1}, some but not all; "
                f"found {list(group)}"
            )
        row[list(group)] = True
    return inside


def activity(generalist: Tensor, inside: Tensor, top: int) -> Tensor:
    """Returns which specialists are active, [B, M] bool, from logits [B, C], membership [M, C] and n."""
    likely = generalist.topk(min(top, generalist.shape[1]), dim=1).indices
    return inside.T[likely].any(1)


def combine_experts(generalist: Tensor, specialists: Tensor, inside: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Returns the distribution that minimises the sum of divergences, by EM in float64.

    Starting from q = p_g, each step averages the predictions of the active set A, distributing the mass of each dustbin
    over its classes in proportion to q: ``q_c ← (p_g(c) + Σ_m [p_m(c) if c in S_m, else p_m(dustbin) q_c /
    q_m(dustbin)]) / (1 + |A|)``. No step increases the sum, which is convex; its gradient bounds the distance from the
    minimum. An example stops within ``TOLERANCE``; with one active specialist one step is exact.

    Args:
        generalist: [B, C] logits.
        specialists: [M, B, C] logits.
        inside: [M, C] bool, the classes of each specialist.
        top: number of the generalist's most probable classes that activate specialists.

    Returns:
        log q [B, C] float64, and an upper bound [B] of the sum's distance from its minimum, in nats. It is above
        ``TOLERANCE`` only if 1000 steps were not enough: overlapping specialists that contradict each other.
    """
    given = generalist.double().log_softmax(1)
    active = activity(generalist, inside, top).double()
    own, outside = inside.double(), (~inside).double()
    p, q = specialists.double().softmax(2), given.exp().clamp_min(_FLOOR)
    fixed = q + torch.einsum("mbc,mc,bm->bc", p, own, active)
    dustbin = torch.einsum("mbc,mc,bm->bm", p, outside, active)
    total = 1 + active.sum(1, keepdim=True)
    found, gap = q.clone(), q.new_zeros(len(q))
    rows = active.any(1).nonzero()[:, 0]
    for step in count():
        now = found[rows]
        grown = fixed[rows] / now + (dustbin[rows] / (now @ outside.T)) @ outside  # minus the gradient
        gap[rows] = grown.amax(1) - total[rows, 0]
        moving = (gap[rows] > TOLERANCE) | (step == 0)  # one step at least: a rare class's logit may still be far off
        if step == _STEPS or not moving.any():
            break
        rows = rows[moving]
        found[rows] = now[moving] * grown[moving] / total[rows]
    return torch.where(active.any(1, keepdim=True), found.log(), given), gap


def warn(gap: float) -> None:
    """Warns if a combination did not reach its minimum within tolerance."""
    if gap > TOLERANCE:
        log.warning(
            "specialists: the teacher's sum of divergences is up to %.1e nats above its minimum: active specialists "
            "contradict each other; a smaller sources.teacher.top activates fewer of them",
            gap,
        )
