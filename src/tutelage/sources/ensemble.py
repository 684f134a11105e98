"""Combines several teachers into one by averaging their outputs."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.sources.base import Source
from tutelage.types import Batch, Signals

MEANS = ("probability", "logit")
LEARNED = "validation"


class Ensemble(Source):
    """The mean of its members' probabilities, or of their logits, as logits.

    ``log Σ_m w_m softmax(z_m)`` or ``Σ_m w_m z_m`` with Σ w = 1: the arithmetic and the geometric mean of the members'
    distributions. A temperature is applied by the loss, to the result.

    Args:
        members: sources of logits.
        combine: ``probability`` or ``logit``.
        weights: one per member, at least 0, scaled to sum to 1; by default equal. ``validation`` in a config means that
            ``tutelage distill`` learns them on validation data first (:func:`learned_weights`).

    Raises:
        TutelageError: there is no member, or the weights are invalid.

    Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531, with ten models.
    """

    weights: Tensor

    def __init__(
        self,
        members: Sequence[Source],
        combine: str = "probability",
        weights: Sequence[float] | str | None = None,
    ):
        super().__init__()
        if combine not in MEANS:
            raise TutelageError(f"an ensemble's combine must be one of {list(MEANS)}; found {combine!r}")
        self.members, self.combine = nn.ModuleList(members), combine
        given = None if isinstance(weights, str) else weights  # not learned yet: this one is used for a dry run only
        self.register_buffer("weights", scaled(given, len(self.members)), persistent=False)

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Requests the logits of every member.

        Raises:
            TutelageError: other signals are read.
        """
        if extra := sorted(set(needs) - {"logits"}):
            raise TutelageError(f"an ensemble has logits only; the objective also reads {extra} of it")
        for member in self.members:
            member.attach({"logits"}, sources)  # type: ignore[operator]

    def name_classes(self, names: Sequence[str]) -> None:
        """Passes the names on to every member."""
        for member in self.members:
            member.name_classes(names)  # type: ignore[operator]

    def forward(self, batch: Batch) -> Signals:
        """Returns the combined logits [B, C]."""
        logits = torch.stack([member(batch)["logits"].float() for member in self.members])
        return {"logits": combined(logits, self.weights.float(), self.combine)}

    def verify(self) -> None:
        """Verifies every member."""
        for member in self.members:
            member.verify()  # type: ignore[operator]


def combined(logits: Tensor, weights: Tensor, combine: str) -> Tensor:
    """Combines the logits [M, B, C] of M members by their weights [M] to [B, C]."""
    if combine == "logit":
        return (weights[:, None, None] * logits).sum(0)
    return (logits.log_softmax(-1) + weights.log()[:, None, None]).logsumexp(0)


def scaled(weights: Sequence[float] | None, members: int) -> Tensor:
    """Returns weights [M] scaled to sum to 1; equal ones for None.

    Raises:
        TutelageError: there is no member, or the weights are not M finite numbers of at least 0 with a positive sum.
    """
    if members == 0:
        raise TutelageError("an ensemble needs members; found none")
    found = [1.0] * members if weights is None else [float(weight) for weight in weights]
    if len(found) != members or not all(0 <= w < math.inf for w in found) or not sum(found) > 0:
        raise TutelageError(
            f"an ensemble of {members} members needs {members} weights of at least 0, not all 0; found {found}"
        )
    return torch.tensor(found, dtype=torch.float64) / sum(found)


def learned_weights(logits: Tensor, label: Tensor, combine: str) -> list[float]:
    """Returns the M weights of least cross-entropy on labelled (validation) examples, a convex problem for both means.

    Found by L-BFGS on the log-weights in float64, starting from equal weights.

    Args:
        logits: logits of the members, [M, N, C].
        label: [N].
        combine: ``probability`` or ``logit``.
    """
    logits, theta = logits.double(), torch.zeros(len(logits), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(combined(logits, theta.softmax(0), combine), label)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return theta.detach().softmax(0).tolist()
