"""Networks that are trained beside the student, and learn from it as it learns from them."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped, tapped
from tutelage.sources.base import Source
from tutelage.types import Batch, Signals


class Peers(Source):
    """Signals of K networks that are trained in the same steps as the student.

    ``logits`` are those of all of them, [B, …, K, C]; ``<signal>@<i>`` is any signal of network i, counted from 0.
    Their weights, metrics and predictions are written beside the student's. Network i reads ``input<i + 2>`` where a
    batch has it (``data.inputs``), an augmentation of the example of its own, else ``input`` as the student does.

    Args:
        networks: of the peers, each with initial weights of its own.

    Raises:
        TutelageError: there is none.
    """

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        if not networks:
            raise TutelageError("networks: expected one or more; found none (peers.count)")
        self.networks = nn.ModuleList(tapped(net).to(memory_format=torch.channels_last) for net in networks)
        self._of_all = True

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Registers the taps that are needed of each network.

        Raises:
            TutelageError: a signal names a network that is not there.
        """
        wanted = set(needs)
        self._of_all = "logits" in wanted
        own: dict[str, set[str]] = {name: set() for name in self.trained_networks()}
        for need in wanted - {"logits"}:
            signal, _, name = need.rpartition("@")
            if name not in own or not signal:
                raise TutelageError(
                    f"sources.peers has the signals logits and <signal>@<i> with i one of {', '.join(own)}; "
                    f"the objective reads {need!r}"
                )
            own[name].add(signal)
        for name, net in self.trained_networks().items():
            net.register_taps(own[name] | {"logits"})

    def forward(self, batch: Batch) -> Signals:
        """Returns the signals of all networks, with gradients."""
        fields = (f"input{number}" for number in range(2, len(self.networks) + 2))
        own_inputs = [{**batch, "input": batch.get(field, batch["input"])} for field in fields]
        networks = zip(self.trained_networks().items(), own_inputs, strict=True)
        found = {name: net(inputs) for (name, net), inputs in networks}
        signals = {f"{signal}@{name}": x for name, own in found.items() for signal, x in own.items()}
        if self._of_all:
            signals["logits"] = torch.stack([own["logits"] for own in found.values()], -2)
        return signals

    def trained_networks(self) -> dict[str, Tapped]:
        """Returns all networks by their number."""
        return {str(i): net for i, net in enumerate(self.networks)}  # type: ignore[misc]
