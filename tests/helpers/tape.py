"""A stand-in for CUDA graphs on a CPU: records operations on the memory that they used, and repeats just these."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.aten._local_scalar_dense:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if not any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns):
            self.operations.append((func, args, kwargs, found))  # a view stays one, of the same memory
        return found


def capture(step):
    """As :func:`tutelage.training.graphs.cuda_capture`; but operations are also computed while they are recorded."""
    with _Recorder() as recorder:
        loss = step()

    @torch.no_grad()
    def replay():
        for func, args, kwargs, found in recorder.operations:
            for old, new in zip(tree_leaves(found), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old is not new:
                    old.copy_(new)
        return loss

    return replay
