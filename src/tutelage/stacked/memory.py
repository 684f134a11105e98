"""Estimates how many students fit into memory together."""

from typing import Any

import torch
from torch import Tensor

from tutelage.data.module import Data
from tutelage.runtime.file_sizes import free_memory
from tutelage.training.module import SupervisedModule

_COPIES = 6  # of the weights: themselves, gradients, two moments, the best so far, a reserve
_SHARE = 0.5  # of what is free


def most_that_fit(module: SupervisedModule, data: Data) -> int:
    """Returns how many copies of ``module`` fit into half of the free memory, at least one."""
    weights = sum(tensor.nbytes for tensor in module.state_dict().values())
    batch = data.batch_size * 4 * torch.Size(data.input_shape).numel()
    own = _COPIES * weights + 2 * batch + 3 * _kept_for_backward(module, data)
    return max(1, int(_SHARE * _free() / own))


def _kept_for_backward(module: SupervisedModule, data: Data) -> int:
    """Returns the bytes that autograd saves for a student's batch."""
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def give(kept: Any) -> Any:
        return kept

    batch = data.sample(min(8, data.batch_size))
    module.eval()
    with torch.autograd.graph.saved_tensors_hooks(note, give):
        signals = module.student(batch)
    del signals
    return sum(seen.values()) * data.batch_size // len(batch["input"])


def _free() -> int:
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return free_memory()
