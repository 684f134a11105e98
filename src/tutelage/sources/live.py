"""A network that learns: the student, or a peer in online distillation."""

from collections.abc import Iterable

from tutelage.objective import Batch, Signals
from tutelage.sources.base import Source
from tutelage.sources.tapped import Tapped


class Live(Source):
    """Signals of a trainable network.

    Args:
        net: the tapped network; its parameters go to the optimizer and the checkpoint.
    """

    def __init__(self, net: Tapped):
        super().__init__()
        self.net = net

    def attach(self, needs: Iterable[str], student: Source) -> None:
        """Hooks the taps that are needed."""
        self.net.want(needs)

    def forward(self, batch: Batch) -> Signals:
        """One pass of the network, with gradients."""
        return self.net(batch["input"])
