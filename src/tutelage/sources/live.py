"""A trainable network: the student, or a peer in online distillation."""

from collections.abc import Iterable, Mapping

from torch import nn

from tutelage.models.tapped import ReadsSources, Tapped, tapped
from tutelage.sources.base import Source
from tutelage.types import Batch, Signals


class Live(Source):
    """Signals of a trainable network.

    Args:
        net: the network, tapped if more than its logits are read; its parameters go to the optimizer and the
            checkpoint.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = tapped(net)

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Registers the taps that are needed; passes the sources to a network that reuses a part of one."""
        self.net.register_taps(needs)
        if isinstance(self.net.net, ReadsSources):
            self.net.net.on_sources_ready(sources)

    def network(self) -> Tapped:
        """Returns the network."""
        return self.net

    def forward(self, batch: Batch) -> Signals:
        """Returns the network's signals, with gradients."""
        return self.net(batch)
