"""A teacher whose weights are frozen."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.checkpoints.weights import digest, gather_full, load_into
from tutelage.compat.torch import FollowsMoves, convert_tensors
from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped, tapped
from tutelage.sources.base import Source
from tutelage.types import Batch, Signals


class Frozen(FollowsMoves, Source):
    """Signals of a network with frozen weights.

    The network is not a submodule: ``parameters()``, ``state_dict()``, ``train()``, a moving average, SyncBN and a DDP
    wrapper do not reach it; only moves of device and dtype do. Frozen is not ``no_grad``: if the input requires a
    gradient (the image of a generator), the gradient passes through.

    Args:
        net: the network, tapped if more than its logits are read.
        checkpoint: file with its weights: one of ours, a PyTorch or a safetensors state dict. ``None`` in a config
            means the network that ``tutelage distill`` trains first, or finds trained.
        key: key of the state dict in that file, if several in it match (``ema``).
        prefix: prefix of the names in it, if several match (``teacher.``).
        rename: pattern → replacement, for names that are not the network's
            (:func:`tutelage.checkpoints.matching.renamed`).
        strict: whether all names and shapes must match; else the network keeps its own weights for all others.
        channels_last: whether to use the channels-last memory format: twice as fast on a CPU, equal up to rounding.
    """

    net: Tapped

    def __init__(
        self,
        net: nn.Module,
        checkpoint: str | None = None,
        key: str | None = None,
        prefix: str | None = None,
        rename: Mapping[str, str] | None = None,
        strict: bool = True,
        channels_last: bool = True,
    ):
        super().__init__()
        own = tapped(net)
        if checkpoint is not None:
            load_into(own.net, checkpoint, key, prefix, rename, strict)
        own = own.eval().requires_grad_(False)
        if channels_last:
            own = own.to(memory_format=torch.channels_last)
        object.__setattr__(self, "net", own)
        self.digest = digest(own.net)

    def after_move(self, convert: Callable[[Tensor], Tensor]) -> None:
        """Moves the network to the same device and dtype."""
        dtypes = [parameter.dtype for parameter in self.net.parameters()]
        convert_tensors(self.net, convert)
        if [parameter.dtype for parameter in self.net.parameters()] != dtypes:
            self.digest = digest(self.net.net)  # the same teacher in another precision

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        return self  # immutable, so copies may share it

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Registers the taps that are needed."""
        self.net.register_taps(needs)

    def network(self) -> Tapped:
        """Returns the network, which is not a submodule."""
        return self.net

    def forward(self, batch: Batch) -> Signals:
        """Returns the signals in eval mode; builds a graph only if the input requires a gradient."""
        with torch.set_grad_enabled(any(field.requires_grad for field in batch.values())):
            signals = self.net(batch)
        return {name: gather_full(signal) for name, signal in signals.items()}  # its parameters may be sharded

    def verify(self) -> None:
        """Checks that the weights have not changed.

        Raises:
            TutelageError: they have.
        """
        if (now := digest(self.net.net)) != self.digest:
            raise TutelageError(f"the frozen teacher has changed: digest {self.digest} at the start, {now} now")
