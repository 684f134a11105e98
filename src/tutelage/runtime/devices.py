"""Differences between the host and an accelerator that a training step must know of."""

import torch
from torch import Tensor

from tutelage.errors import TutelageError, first_line


def usable(name: str) -> torch.device:
    """Returns a device by its name.

    Raises:
        TutelageError: there is no such device here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise TutelageError(
            f"device={name} can't be used here (cpu, cuda, cuda:1 …): {first_line(error)[:200]}"
        ) from error


def waits(device: torch.device) -> bool:
    """Checks whether the host must wait for ``device`` to finish its work before it can read a value there."""
    return device.type != "cpu"


def free_memory(device: torch.device) -> float:
    """Returns the bytes that are free on ``device``; no limit where nothing is kept (the host, meta, fake devices).

    It is 0 where a device can't tell.
    """
    module = getattr(torch, device.type, None)
    if device.type == "cpu" or module is None or not module.is_available():
        return float("inf")
    return float(module.mem_get_info(device)[0]) if hasattr(module, "mem_get_info") else 0.0


def send(x: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor of the host to ``device``, from pinned memory where it is CUDA's: then the host does not wait."""
    if device.type == "cuda" and torch.cuda.is_available():
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
