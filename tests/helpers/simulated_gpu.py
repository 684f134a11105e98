"""GPUs that are not there: tensors with real values that live on ``cuda:0`` or ``cuda:1``, forward and backward.

An operation on tensors of two devices raises, as on a real one; what is stricter here is said at ``_refuse_mixture``.
Python sees ``cuda``; to PyTorch's C++ code they are of its device type ``lazy``, whose backward pass needs no driver
(``Engine::ready_queue`` runs it, as the CPU's, in the calling thread). Each is a wrapper around a tensor on the CPU,
where ``__torch_dispatch__`` computes. What is not simulated: autocast, streams, memory, kernels of their own.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_LAZY, _GPU = "lazy", "cuda"
_MOVES = {"aten::_to_copy", "aten::copy_", "aten::_foreach_copy_", "aten::_copy_from", "aten::_local_scalar_dense"}
_FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray)  # which C++ makes on its device at once
_NO_TENSORS_ON_HOST = {Tensor.numpy: "numpy", Tensor.__array__: "numpy", Tensor.data_ptr: "data_ptr"}


class SimulatedTensor(Tensor):
    """A tensor on a simulated GPU; ``on_host`` has its values."""

    on_host: Tensor

    @staticmethod
    def __new__(cls, on_host: Tensor, index: int) -> "SimulatedTensor":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            on_host.size(),
            strides=on_host.stride(),
            storage_offset=on_host.storage_offset(),
            dtype=on_host.dtype,
            device=torch.device(_LAZY, index),
        )
        made.on_host = on_host
        return made

    @property
    def device(self) -> torch.device:
        return torch.device(_GPU, Tensor.device.__get__(self).index)  # type: ignore[attr-defined]

    is_cuda, is_cpu = True, False

    def __repr__(self) -> str:
        return f"{self.on_host!r} on {self.device}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.on_host.detach().__reduce_ex__(protocol)  # a file is read on the host

    def __deepcopy__(self, memo: dict[int, Any]) -> "SimulatedTensor":
        if id(self) not in memo:
            copied = SimulatedTensor(self.on_host.detach().clone(), self.device.index)
            for name in self.__dict__.keys() - {"on_host"}:  # that it is a parameter
                setattr(copied, name, getattr(self, name))
            memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return memo[id(self)]  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(function, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(op, args, kwargs or {})


def _call(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """A call of PyTorch's Python interface: ``cuda`` becomes ``lazy`` on the way in, and on the way out ``cuda``."""
    if function in _NO_TENSORS_ON_HOST and any(isinstance(x, SimulatedTensor) for x in args):
        raise TypeError(f"can't convert {args[0].device} device type tensor to numpy. Use Tensor.cpu() first.")
    if function is Tensor.tolist and isinstance(args[0], SimulatedTensor):
        return args[0].on_host.tolist()
    if function is Tensor.cuda:
        index = args[1] if len(args) > 1 else kwargs.get("device")
        function, args, kwargs = Tensor.to, (args[0], torch.device(_GPU, index) if isinstance(index, int) else _GPU), {}
    if function is Tensor.pin_memory:
        return args[0]
    if function is Tensor.to:
        args = tuple(torch.device(x) if isinstance(x, str) else x for x in args)
    args, kwargs = _each(torch.device, _to_lazy, (args, kwargs))
    if isinstance(device := kwargs.get("device"), str | int):
        kwargs["device"] = _to_lazy(torch.device(device))
    where = None
    if function in _FROM_DATA:
        where = kwargs.pop("device", None)
    elif function is Tensor.new_tensor and isinstance(args[0], SimulatedTensor):
        where, args = _to_lazy(args[0].device), (args[0].on_host, *args[1:])
    with torch._C.DisableTorchFunctionSubclass():
        found = function(*args, **kwargs)
        if where is not None:
            found = found.detach().to(where).requires_grad_(found.requires_grad)
    return found if isinstance(found, Tensor) else _each(torch.device, _to_gpu, found)


def _each(kind: type, change: Callable[[Any], Any], x: Any) -> Any:
    """``x`` with every ``kind`` in its lists, tuples and dicts changed; a tenth of the time of torch's tree_map."""
    if isinstance(x, kind):
        return change(x)
    if type(x) is tuple or type(x) is list:
        return type(x)([_each(kind, change, one) for one in x])
    return {name: _each(kind, change, one) for name, one in x.items()} if type(x) is dict else x


def _to_lazy(device: torch.device) -> torch.device:
    if device.type != _GPU:
        return device
    return torch.device(_LAZY, torch.cuda.current_device() if device.index is None else device.index)


def _to_gpu(device: torch.device) -> torch.device:
    return torch.device(_GPU, device.index) if device.type == _LAZY else device


def _dispatch(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Computes ``op`` on the host and puts the result where its arguments are."""
    wrappers: dict[int, SimulatedTensor] = {}
    indices: set[int] = set()
    hosts: list[Tensor] = []

    def inner(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, SimulatedTensor):
            hosts.append(tensor)
            return tensor
        wrappers[id(tensor.on_host)] = tensor
        indices.add(tensor.device.index)
        return tensor.on_host

    given, named = _each(Tensor, inner, (args, kwargs))
    if op._schema.name not in _MOVES:
        _refuse_mixture(op, indices, hosts)
    index = _index(named.get("device"), indices)
    if named.get("device") is not None and named["device"].type == _LAZY:
        named["device"] = torch.device("cpu")
    with _generator_of(op, index):
        found = op(*given, **named)

    def wrap(tensor: Tensor) -> Tensor:
        if id(tensor) in wrappers:
            return wrappers[id(tensor)]  # an operation in place
        if index is None or any(tensor is host for host in hosts):
            return tensor
        return SimulatedTensor(tensor, index)

    return _each(Tensor, wrap, found)


def _index(asked: torch.device | None, indices: set[int]) -> int | None:
    """The GPU that a result goes to; None: the host."""
    if asked is None:
        return next(iter(indices), None)
    return asked.index if asked.type == _LAZY else None


def _refuse_mixture(op: Any, indices: set[int], hosts: list[Tensor]) -> None:
    """Refuses tensors of several devices.

    A number (0-dim) on the host may go with others where an operation works element by element, as in PyTorch. An
    index on the host is refused here: PyTorch takes it, and copies it at every call.
    """
    if op.namespace == "c10d" or not indices:
        return
    if torch.Tag.pointwise in op.tags or op._schema.name.startswith("aten::_foreach"):
        hosts = [tensor for tensor in hosts if tensor.dim()]
    if len(indices) > 1 or hosts:
        found = sorted({f"{_GPU}:{index}" for index in indices} | {str(host.device) for host in hosts})
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {' and '.join(found)} in {op}")


@contextmanager
def _generator_of(op: Any, index: int | None) -> Iterator[None]:
    """Inside, chance comes from the GPU's own generator where ``op`` draws."""
    if index is None or torch.Tag.nondeterministic_seeded not in op.tags:
        yield
        return
    own, default = torch.cuda.default_generators[index], torch.default_generator
    before = default.get_state()
    default.set_state(own.get_state())
    try:
        yield
        own.set_state(default.get_state())
    finally:
        default.set_state(before)


class _Functions(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(function, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Creates tensors on a GPU that depend on no other tensor."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(op, args, kwargs or {})


@contextmanager
def simulated_gpus(count: int = 1) -> Iterator[None]:
    """Inside, this process has ``count`` GPUs."""
    current = [0]

    def choose(device: Any) -> None:
        current[0] = torch.device(device).index or 0 if not isinstance(device, int) else device

    replaced: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: count,
        "current_device": lambda: current[0],
        "set_device": choose,
        "default_generators": tuple(torch.Generator().manual_seed(1000 + i) for i in range(count)),
        "get_device_capability": lambda device=None: (8, 0),
        "get_device_name": lambda device=None: "a simulated GPU",
        "mem_get_info": lambda device=None: (64 << 30, 80 << 30),
        "is_current_stream_capturing": lambda: False,
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: None,
        "manual_seed": lambda seed: torch.cuda.default_generators[current[0]].manual_seed(seed),
        "manual_seed_all": lambda seed: [g.manual_seed(seed) for g in torch.cuda.default_generators],
        "get_rng_state_all": lambda: [g.get_state() for g in torch.cuda.default_generators],
        "set_rng_state_all": lambda states: [
            g.set_state(s) for g, s in zip(torch.cuda.default_generators, states, strict=True)
        ],
    }
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter that moves stays the same object
    try:
        with (
            mock.patch.multiple(torch.cuda, **replaced),
            mock.patch("torch.accelerator.current_accelerator", return_value=None),
            _Functions(),
            _Factories(),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", ".*pin_memory.*")  # there is no accelerator to PyTorch's C++ code
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
