"""The interface of everything that gives signals: student, teacher, peer, moving average, cache."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tutelage.models.tapped import Tapped
from tutelage.types import Batch, Signals

if TYPE_CHECKING:
    from tutelage.data.module import Data


class Source(nn.Module):
    """Turns a batch into named tensors.

    Attributes:
        supports_validation: whether it also answers validation images.
        asks_host: whether its signals come from the host, or it reads values there to find them.
    """

    supports_validation = True
    asks_host = False

    def attach(self, needs: Iterable[str], sources: "Mapping[str, Source]") -> None:
        """Called once, before the first step, with the names of the signals to be read and all sources by name."""
        raise NotImplementedError

    def name_classes(self, names: Sequence[str]) -> None:
        """Called before the first step with the names of the data's classes, in the order of their labels."""

    def expect(self, key: Mapping[str, Tensor]) -> None:
        """Called before the first step with the keys of ``train`` and ``val``; raises if one has no signals."""

    def graded(self, data: "Data") -> Mapping[str, tuple[Tensor, Tensor]]:
        """Returns logits [N, C] and labels [N], by split, of labelled examples that it can answer before training.

        Their accuracy is logged. Networks have none here: they are measured where they are trained or given.
        """
        return {}

    def forward(self, batch: Batch) -> Signals:
        """Returns the signals of ``batch`` by name."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each optimizer step."""

    def network(self) -> Tapped | None:
        """Returns the network whose signals these are; None if they come from elsewhere or from several networks."""
        return None

    def trained_network(self) -> Tapped | None:
        """Returns the network that this source trained, to be saved and evaluated; None if it trained none."""
        return None

    def verify(self) -> None:
        """Called after the last step; raises if what the source guarantees (frozen weights) does not hold."""
