"""The one interface of everything that gives signals: student, teacher, peer, moving average, cache."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from tutelage.models.tapped import Tapped
from tutelage.types import Batch, Signals

if TYPE_CHECKING:
    from tutelage.data.base import ImageData


class Source(nn.Module):
    """Turns a batch into named tensors.

    Attributes:
        everywhere: whether it can be asked about validation images, too.
        asks_host: whether its signals come from the host, or it reads values there to find them.
    """

    supports_validation = True
    asks_host = False

    def attach(self, needs: Iterable[str], sources: "Mapping[str, Source]") -> None:
        """Told once, before the first step, which signals will be read, and of all sources, the student included."""
        raise NotImplementedError

    def name_classes(self, names: Sequence[str]) -> None:
        """Told before the first step what the data's classes are called, in the order of their labels."""

    def expect(self, key: Mapping[str, Tensor]) -> None:
        """Told before the first step which examples ``train`` and ``val`` hold; raises if one is unknown to it."""

    def graded(self, data: "ImageData") -> Mapping[str, tuple[Tensor, Tensor]]:
        """Logits [N, C] and labels [N], by split, of labelled examples that it is known to answer before training.

        Their accuracy is logged. Networks have none here: they are measured where they are trained or given.
        """
        return {}

    def forward(self, batch: Batch) -> Signals:
        """The signals of ``batch``."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each optimizer step."""

    def trained_network(self) -> Tapped | None:
        """The network that this source came to be in training, to be saved and evaluated; None if it made none."""
        return None

    def verify(self) -> None:
        """Called after the last step; raises where a promise of this source was broken."""
