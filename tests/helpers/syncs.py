"""Finds, on a CPU, where a training step on a device would wait for it or copy from the host."""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.runtime import devices
from tutelage.training.fast_loop import LeanEpochLoop

aten = torch.ops.aten
# Each of these makes the host wait on a device: it reads a value there, or the shape of its result depends on values.
WAITS = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim,
    aten.unique_consecutive, aten.is_nonzero, aten.equal, aten.repeat_interleave,
}  # fmt: skip
# These make a tensor of the host's: what a device computes with would then be copied there.
FROM_HOST = {aten.lift_fresh, aten.lift_fresh_copy}
T = torch.Tensor
# On a CPU these read the memory, or do nothing at all.
TO_HOST = {T.tolist, T.numpy, T.cpu, T.item, T.__bool__, T.__int__, T.__float__, T.__index__, torch.from_numpy}


class _Calls(TorchFunctionMode):
    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in TO_HOST:
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Watch(TorchDispatchMode):
    """Notes each operation that waits, and each tensor that is made of Python's numbers."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.calls = _Calls(self.found)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        by_mask = packet in (aten.index, aten.index_put, aten.index_put_) and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        if packet in WAITS | FROM_HOST or by_mask:
            self.found.append(str(packet))
        return func(*args, **(kwargs or {}))


@contextmanager
def watched_steps(monkeypatch):
    """A list that gets what the lean steps inside do of this, with everything believing that its device waits."""
    found = []
    step = LeanEpochLoop._step

    def watched(self, data_fetcher):
        with Watch() as watch, watch.calls:
            step(self, data_fetcher)
        found.append(watch.found)

    with monkeypatch.context() as patch:
        patch.setattr(LeanEpochLoop, "_step", watched)
        patch.setattr(devices, "waits", lambda device: True)
        yield found
