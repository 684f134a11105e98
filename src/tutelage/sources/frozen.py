"""A teacher that never learns."""

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
    """Signals of a network whose weights stay as they are.

    It is no child module: ``parameters()``, ``state_dict()``, ``train()``, a moving average, SyncBN and a DDP wrapper
    cannot reach it; only moves of device and dtype do. Frozen is not ``no_grad``: where the input requires a gradient
    (a generator's picture), the gradient passes through.

    Args:
        net: the network, tapped where more than its logits are read.
        checkpoint: file with its weights: of ours, a PyTorch or a safetensors state dict. ``None`` in a config means
            the network that ``tutelage distill`` trains (or finds trained) first.
        key: of the state dict in that file, where several in it fit (``ema``).
        prefix: before all names in it, where several fit (``teacher.``).
        seed: of that training; by default ``stages.teacher.seed``. Read by ``tutelage distill`` alone.
        cache: whether ``tutelage distill`` may write its logits down once, where images do not change
            (:func:`tutelage.pipeline.teacher_cache.cached`), so that it does not run once an epoch.
        train: whether ``tutelage distill`` trains it if there is no ``checkpoint``; if false the network teaches with
            the weights that it is built with (``pretrained``). Read by ``tutelage distill`` alone.
        channels_last: lay convolutions out with the channel innermost: twice the speed on a CPU, the same to rounding.
    """

    net: Tapped

    def __init__(
        self,
        net: nn.Module,
        checkpoint: str | None = None,
        key: str | None = None,
        prefix: str | None = None,
        seed: int | None = None,
        cache: bool = True,
        train: bool = True,
        channels_last: bool = True,
    ):
        super().__init__()
        own = tapped(net)
        if checkpoint is not None:
            load_into(own.net, checkpoint, key, prefix)
        own = own.eval().requires_grad_(False)
        if channels_last:
            own = own.to(memory_format=torch.channels_last)
        object.__setattr__(self, "net", own)
        self.digest = digest(own.net)

    def after_move(self, convert: Callable[[Tensor], Tensor]) -> None:
        """Moves the network along."""
        dtypes = [parameter.dtype for parameter in self.net.parameters()]
        convert_tensors(self.net, convert)
        if [parameter.dtype for parameter in self.net.parameters()] != dtypes:
            self.digest = digest(self.net.net)  # the same teacher, to another precision

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        return self  # nothing in it ever changes, so copies may share it

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Hooks the taps that are needed."""
        self.net.register_taps(needs)

    def network(self) -> Tapped:
        """The network, which is no child module."""
        return self.net

    def forward(self, batch: Batch) -> Signals:
        """One pass in eval mode; a graph is kept only where the input asks for it."""
        with torch.set_grad_enabled(any(field.requires_grad for field in batch.values())):
            signals = self.net(batch)
        return {name: gather_full(signal) for name, signal in signals.items()}  # its parameters may be in shards

    def verify(self) -> None:
        """Checks that the weights are those it began with.

        Raises:
            TutelageError: something has changed them.
        """
        if (now := digest(self.net.net)) != self.digest:
            raise TutelageError(f"the frozen teacher has changed: digest {self.digest} at the start, {now} now")
