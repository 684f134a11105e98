"""Private APIs of torch, and its exporters, which change between releases."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

# The base of BatchNorm1d, 2d and 3d and of SyncBatchNorm, to derive from beside one of them: torch exports it nowhere.
BatchNorm = nn.modules.batchnorm._BatchNorm
SPARSE_PRODUCTS = (torch.ops.aten._embedding_bag, torch.ops.aten._embedding_bag_forward_only)  # of F.embedding_bag
_SINGLE = torch.float32.itemsize


class FollowsMoves(nn.Module):
    """A module that is told when it moves to another device or precision.

    ``Module.to`` and its kin have no public hook, and do not reach tensors that are neither parameters nor buffers.
    """

    def after_move(self, convert: Callable[[Tensor], Tensor]) -> None:
        """Reacts to a move of the parameters and buffers.

        Args:
            convert: what was applied to each of them.
        """
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.after_move(fn)
        return self


class KeepsPrecision(nn.Module):
    """A module that stays in single precision where it would be converted to half of it, such as by ``bf16-true``."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def convert(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            halved = tensor.is_floating_point() and moved.dtype.itemsize < _SINGLE <= tensor.dtype.itemsize
            return tensor.to(moved.device) if halved else moved

        return super()._apply(convert, recurse)


def empty_for_other_processes(*shape: int, dtype: torch.dtype) -> Tensor:
    """Returns an empty tensor in shared memory; ``share_memory_`` would fill ordinary memory and copy it."""
    storage = torch.UntypedStorage._new_shared(torch.Size(shape).numel() * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


def convert_tensors(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> None:
    """Applies ``convert`` to every parameter and buffer in place, as ``Module.to`` does with what it was asked for."""
    module._apply(convert)


def map_tensors(convert: Callable[[Tensor], Tensor], values: Any) -> Any:
    """Returns nested dicts, lists and tuples with every tensor converted; torch's trees are private in Python."""
    from torch.utils._pytree import tree_map_only

    return tree_map_only(Tensor, convert, values)


def copy_all_(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copies each source into its target, in one kernel; the public way is a call a tensor."""
    torch._foreach_copy_(targets, sources)


def lerp_all_(targets: list[Tensor], ends: list[Tensor], weight: float) -> None:
    """Moves each target towards its end by the share ``weight``, in one kernel; the public way is a call a tensor."""
    torch._foreach_lerp_(targets, ends, weight)


def broadcast_all_(tensors: list[Tensor], buffer_bytes: int = 2**28) -> None:
    """Gives all ranks rank 0's tensors, in place and in few messages; the public way is a message a tensor."""
    dist._broadcast_coalesced(dist.distributed_c10d._get_default_group(), tensors, buffer_bytes, 0)


def leave_out_of_ddp(module: nn.Module, names: list[str]) -> None:
    """Tells DDP to leave these parameters and buffers of a module alone; its constructor has no argument for them."""
    cast(Any, DistributedDataParallel)._set_params_and_buffers_to_ignore_for_model(module, names)


def is_compiled(module: nn.Module) -> bool:
    """Checks whether ``Module.compile`` was called on a module, which nothing public tells."""
    return getattr(module, "_compiled_call_impl", None) is not None


def undo_compile(module: nn.Module) -> None:
    """Takes ``Module.compile`` back; there is no public way."""
    module._compiled_call_impl = None


def inside_functorch() -> bool:
    """Checks whether a transform of ``torch.func`` (vmap, grad …) is running, which nothing public tells."""
    return torch._C._are_functorch_transforms_active()


@contextmanager
def without_worker() -> Iterator[None]:
    """Context manager in which ``torch.utils.data.get_worker_info()`` is None, as outside of a loader's workers.

    A dataset that splits itself among workers then gives all of its samples; there is no public way to say so.
    """
    from torch.utils.data._utils import worker

    kept, worker._worker_info = worker._worker_info, None
    try:
        yield
    finally:
        worker._worker_info = kept


@contextmanager
def _quiet() -> Iterator[None]:
    """Context manager in which exporters neither warn, log nor print graphs: what they have to say they raise.

    That on TorchScript prints the graph that it can't write past Python's streams, by a function of torch._C; there is
    no argument for it (``verbose=False`` is taken for True).
    """
    before, printed = logging.root.manager.disable, torch._C._jit_onnx_log
    logging.disable(logging.ERROR)
    torch._C._jit_onnx_log = lambda *texts: None
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        torch._C._jit_onnx_log = printed


def traced_program(net: nn.Module, arguments: tuple[Tensor, ...], axes: list[dict[int, str]]) -> Any:
    """Returns ``net`` as a program of ``torch.export``.

    Args:
        net: takes ``arguments`` by position, as ``*values``.
        arguments: an example.
        axes: for each argument the axes of any length, by number.
    """
    dynamic = tuple(dict.fromkeys(one, torch.export.Dim.DYNAMIC) for one in axes)
    with _quiet(), torch.no_grad():
        return torch.export.export(net, arguments, dynamic_shapes=(dynamic,))


def write_onnx(
    net: nn.Module, arguments: tuple[Tensor, ...], axes: list[dict[int, str]], names: list[str], path: Path
) -> None:
    """Writes ``net`` as an ONNX file with the output ``logits``, by the first of torch's two exporters that can.

    The one on ``torch.export`` needs onnxscript; the one on TorchScript is deprecated, but writes some networks that
    the other can't, such as those with fake quantisation.

    Args:
        net: takes ``arguments`` by position, as ``*values``.
        arguments: an example.
        axes: for each argument the axes of any length, by number, with their names.
        names: of the arguments.
        path: of the file.

    Raises:
        Exception: neither can; that of the last.
    """
    with _quiet(), torch.no_grad():
        if find_spec("onnxscript") is not None:
            try:
                program = torch.onnx.export(
                    net, arguments, dynamo=True, dynamic_shapes=(tuple(axes),), input_names=names,
                    output_names=["logits"], verbose=False,
                )  # fmt: skip
                assert program is not None
                program.save(path, external_data=False)
                return
            except Exception:  # of any kind: the other one is tried
                path.unlink(missing_ok=True)
        dynamic = {**dict(zip(names, axes, strict=True)), "logits": {0: "batch"}}
        torch.onnx.export(
            net, arguments, path, dynamo=False, input_names=names, output_names=["logits"], dynamic_axes=dynamic,
            opset_version=17,
        )  # fmt: skip
