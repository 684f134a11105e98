"""Defines the interface of every source of signals: student, teacher, peer, moving average, cache."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tutelage.models.tapped import Tapped
from tutelage.types import Batch, Signals

if TYPE_CHECKING:
    from tutelage.data.module import Data


class Source(nn.Module):
    """Turns a batch into named tensors.

    Attributes:
        supports_validation: whether it also has signals of validation examples.
        asks_host: whether computing its signals synchronises with the host, which excludes CUDA graphs.
    """

    supports_validation = True
    asks_host = False

    def attach(self, needs: Iterable[str], sources: "Mapping[str, Source]") -> None:
        """Prepares the source for the signals that will be read; called once, before the first step.

        Args:
            needs: names of the signals.
            sources: all sources by name.
        """
        raise NotImplementedError

    def name_classes(self, names: Sequence[str]) -> None:
        """Receives the names of the data's classes, in the order of their labels, before the first step."""

    def expect(self, key: Mapping[str, Tensor]) -> None:
        """Checks before the first step that the examples with the keys of ``train`` and ``val`` have signals."""

    def graded(self, data: "Data") -> Mapping[str, tuple[Tensor, Tensor]]:
        """Returns logits [N, C] and labels [N] by split, whose accuracy is logged before training.

        Empty for networks, which are evaluated when they are trained or loaded.
        """
        return {}

    def forward(self, batch: Batch) -> Signals:
        """Returns the signals of ``batch`` by name."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Updates the source after each optimizer step."""

    def network(self) -> Tapped | None:
        """Returns the network that computes the signals; None if there is none or more than one."""
        return None

    def trained_networks(self) -> Mapping[str, Tapped]:
        """Returns the networks that this source trained, to be saved and evaluated, by the name of their subfolder.

        Empty for a source that trains none; an only network may have the empty name.
        """
        return {}

    def verify(self) -> None:
        """Checks after the last step what the source guarantees, such as frozen weights."""


class CountingSource(Source):
    """A source that counts optimizer steps, also across a resume.

    Attributes:
        steps: the number so far, part of the state.
    """

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._counted: int | None = None  # `steps` on the host: reading the buffer would synchronise at every step
        self.register_load_state_dict_post_hook(_reset_count)

    def count_step(self) -> int:
        """Counts a step and returns its number, from 1."""
        self.steps += 1
        self._counted = int(self.steps) if self._counted is None else self._counted + 1
        return self._counted


def _reset_count(module: nn.Module, incompatible: object) -> None:
    """Discards the host's count, so that the loaded one is read."""
    module._counted = None  # type: ignore[assignment]
