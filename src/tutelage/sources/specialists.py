"""A generalist and specialists for the classes that it confuses, as one teacher."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.sources.base import Source
from tutelage.types import Batch, Signals

log = logging.getLogger(__name__)

TOLERANCE = 1e-6  # nats
_STEPS = 1000
_FLOOR = 1e-300  # stands for a probability of 0, which nothing could be shared out by


class Specialists(Source):
    """Combines a generalist and specialists into the distribution that is nearest to all their predictions.

    A specialist m knows its classes S_m and one dustbin for all others: its p_m is the softmax of its C logits with the
    others' probabilities summed (:class:`tutelage.losses.logit.dustbin.Dustbin` trains it). Those are active whose
    classes hold one of the ``top`` most probable classes of the generalist. The teacher's q minimises
    ``KL(p_g ‖ q) + Σ_{m active} KL(p_m ‖ q_m)``, q_m being q with the classes outside S_m summed; without an active
    specialist it is p_g. What comes out is log q; a temperature is applied by the loss.

    Args:
        generalist: gives logits of all C classes.
        specialists: the same, one a group; ``tutelage distill`` trains them and names them here.
        groups: the classes of each specialist. ``None`` in a config means that ``tutelage distill`` finds them; a
            source that was made without specialists only meets the shapes and is its generalist.
        count: how many groups are looked for. Read by ``tutelage distill`` alone.
        top: n of the paper.
        cache: as of :class:`tutelage.sources.frozen.Frozen`.

    Raises:
        TutelageError: not one group for each specialist, or an argument out of range.

    Hinton, Vinyals & Dean 2015 (arXiv:1503.02531), section 5, where n = 1.
    """

    asks_host = True  # the search for its answer ends where the values say so

    def __init__(
        self,
        generalist: Source,
        specialists: Sequence[Source] = (),
        groups: Sequence[Sequence[int]] | None = None,
        count: int = 3,
        top: int = 1,
        cache: bool = True,
    ):
        super().__init__()
        if type(top) is not int or top < 1:
            raise TutelageError(f"specialists: top must be a whole number of at least 1; found {top!r}")
        self.generalist, self.specialists = generalist, nn.ModuleList(specialists)
        if specialists and len(specialists) != len(groups or []):
            raise TutelageError(f"{len(specialists)} specialists need as many groups; found {groups}")
        self.groups, self.count, self.top, self.worst = groups, count, top, 0.0

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Requests the logits of the generalist and of all specialists.

        Raises:
            TutelageError: something else is read of it.
        """
        if extra := sorted(set(needs) - {"logits"}):
            raise TutelageError(f"specialists have logits only; the objective also reads {extra} of them")
        for member in (self.generalist, *self.specialists):
            member.attach({"logits"}, sources)

    def forward(self, batch: Batch) -> Signals:
        """Returns log q [B, C], to be used as logits.

        Raises:
            TutelageError: groups that can be none, or a count that finds none.
        """
        logits = self.generalist(batch)["logits"].float()
        if self.groups is None:
            check_count(self.count, logits.shape[1])
            return {"logits": logits}
        inside = membership(self.groups, logits.shape[1]).to(logits.device)
        if not self.specialists:
            return {"logits": logits}
        special = torch.stack([member(batch)["logits"].float() for member in self.specialists])
        found, gap = combine_experts(logits, special, inside, self.top)
        self.worst = max(self.worst, float(gap.max()))
        return {"logits": found.to(logits.dtype)}

    def verify(self) -> None:
        """Verifies all networks, and warns where the combination did not reach its minimum."""
        for member in (self.generalist, *self.specialists):
            member.verify()
        warn(self.worst)


def check_count(count: int, classes: int) -> None:
    """Checks the number of groups.

    Raises:
        TutelageError: not 2 to ``classes``.
    """
    if type(count) is not int or not 2 <= count <= classes:
        raise TutelageError(f"specialists: count must be 2 to {classes}, the number of classes; found {count!r}")


def membership(groups: Sequence[Sequence[int]], classes: int) -> Tensor:
    """Returns [M, C] bool: whether each class is in each group.

    Raises:
        TutelageError: no group; a class that is none or comes twice in a group; a group of none or of all classes.
    """
    if not groups or not all(isinstance(group, Sequence) for group in groups):
        raise TutelageError(f"specialists: groups are lists of classes, such as [[0, 6], [5, 7, 9]]; found {groups}")
    inside = torch.zeros(len(groups), classes, dtype=torch.bool)
    for row, group in zip(inside, groups, strict=True):
        known = all(type(c) is int and 0 <= c < classes for c in group)
        if not known or len({*group}) < len(group) or not 0 < len(group) < classes:
            raise TutelageError(
                f"specialists: a group is some but not all of the classes 0 to {classes - 1}, each once; "
                f"found {list(group)}"
            )
        row[list(group)] = True
    return inside


def activity(generalist: Tensor, inside: Tensor, top: int) -> Tensor:
    """Returns [B, M] bool, which specialists are active for an example, of [B, C] logits, [M, C] membership and n."""
    likely = generalist.topk(min(top, generalist.shape[1]), dim=1).indices
    return inside.T[likely].any(1)


def combine_experts(generalist: Tensor, specialists: Tensor, inside: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Returns the distribution that minimises the sum of divergences, by EM in float64.

    From q = p_g, each step gives every class what it was said to have, and shares each active dustbin out among the
    classes in it as q does now: ``q_c ← (p_g(c) + Σ_m [p_m(c) if c in S_m, else p_m(dustbin) q_c / q_m(dustbin)]) /
    (1 + |A|)``. No step increases the sum, which is convex, and its gradient bounds from above how far it is from the
    minimum. An example is done within ``TOLERANCE`` of it: with one active specialist after one step, which is exact.

    Args:
        generalist: [B, C] logits.
        specialists: [M, B, C] logits.
        inside: [M, C] bool, a specialist's classes.
        top: how many of the generalist's most probable classes make specialists active.

    Returns:
        log q [B, C] float64, and for each example a bound [B] on what the sum exceeds its minimum by, in nats. It is
        above ``TOLERANCE`` only where 1000 steps were not enough: overlapping specialists that contradict each other.
    """
    given = generalist.double().log_softmax(1)
    active = activity(generalist, inside, top).double()
    own, outside = inside.double(), (~inside).double()
    p, q = specialists.double().softmax(2), given.exp().clamp_min(_FLOOR)
    fixed = q + torch.einsum("mbc,mc,bm->bc", p, own, active)
    dustbin = torch.einsum("mbc,mc,bm->bm", p, outside, active)
    total = 1 + active.sum(1, keepdim=True)
    found, gap = q.clone(), torch.zeros_like(q[:, 0])
    rows = active.any(1).nonzero()[:, 0]
    for step in range(_STEPS + 1):
        now = found[rows]
        grown = fixed[rows] / now + (dustbin[rows] / (now @ outside.T)) @ outside  # minus the gradient
        gap[rows] = grown.amax(1) - total[rows, 0]
        moving = (gap[rows] > TOLERANCE) | (step == 0)  # near in nats, a rare class may still be far by its logit
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
            "contradict each other; fewer of them are active with a smaller sources.teacher.top",
            gap,
        )
