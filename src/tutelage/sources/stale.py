"""Copies of networks that learn together, refreshed every n steps (co-distillation)."""

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tutelage.compat.torch import copy_all_
from tutelage.errors import TutelageError, nearest
from tutelage.models.tapped import Tapped
from tutelage.sources.base import CountingSource, Source
from tutelage.types import Batch, Signals


class Stale(CountingSource):
    """Signals of copies of the student and its peers that are up to ``every`` steps old.

    ``logits`` are those of all copies, [B, …, K, C], in the order of ``of``. Copies run in eval mode and never learn;
    after each ``every`` optimizer steps they take the weights and buffers of their networks. They and the count of
    steps are part of the state, so a resumed run refreshes them at the same steps.

    Args:
        every: n, the number of steps between two copies.
        of: names of the sources whose networks are copied.

    Raises:
        TutelageError: ``every`` is below 1, or a source is not there or has no network.

    Anil et al., "Large Scale Distributed Neural Network Training through Online Distillation", 2018, arXiv:1804.03235.
    """

    def __init__(self, every: int = 50, of: Sequence[str] = ("student", "peers")):
        super().__init__()
        if every < 1:
            raise TutelageError(f"sources: a stale copy is refreshed every 1 step or more; found every={every}")
        self.every, self.of = every, list(of)
        self.copies = nn.ModuleList()
        self._originals: list[Tapped] = []

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Copies the networks.

        Raises:
            TutelageError: a source is not there or has no network, or another signal than ``logits`` is read.
        """
        if other := set(needs) - {"logits"}:
            raise TutelageError(f"a stale copy has the signal logits alone; the objective reads {min(other)!r}")
        originals = [net for name in self.of for net in _networks(name, sources)]
        self.copies = nn.ModuleList(copy.deepcopy(net).requires_grad_(False).eval() for net in originals)
        object.__setattr__(self, "_originals", originals)  # not submodules: their own sources save them

    def train(self, mode: bool = True) -> "Stale":
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, batch: Batch) -> Signals:
        """Returns the logits of all copies, without gradient."""
        with torch.no_grad():
            return {"logits": torch.stack([net(batch)["logits"] for net in self.copies], -2)}

    @torch.no_grad()
    def after_step(self) -> None:
        """Refreshes the copies if it is time."""
        if self.count_step() % self.every:
            return
        for own, net in zip(self.copies, self._originals, strict=True):
            copy_all_(_tensors(own), _tensors(net))


def _tensors(net: nn.Module) -> list[Tensor]:
    return [*net.parameters(), *net.buffers()]


def _networks(name: str, sources: Mapping[str, Source]) -> list[Tapped]:
    if name not in sources:
        raise TutelageError(f"sources: a stale copy is of {name!r}, which is not there; {nearest(name, sources)}")
    source = sources[name]
    own = source.network()
    found = list(source.trained_networks().values()) if own is None else [own]
    if not found:
        raise TutelageError(f"sources: a stale copy is of {name!r}, which has no network that learns")
    return found
