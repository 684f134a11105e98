"""Random numbers as pure functions of named integers.

Nothing random in Tutelage depends on what ran before it: the order of examples is f(seed, epoch), an augmentation
f(seed, view, key), dropout f(seed, step, rank). So an interrupted run ends in the bits of an uninterrupted one, and
runs that share a seed are paired.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer: splitmix64's increment
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def derive_seed(*parts: int | str) -> int:
    """Returns a 63-bit seed that is a pure, well-spread function of ``parts``; their order and types count."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Returns a CPU generator seeded with :func:`derive_seed` of ``parts``."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def reseed(device: torch.device, *parts: int | str) -> None:
    """Seeds the default generators of the CPU and of ``device``; without an index that is the current one of its type.

    ``torch.manual_seed`` would do, but formats a stack trace at every call while CUDA is there and not yet in use, and
    seeds all devices of a machine, those of other ranks as well.
    """
    seed = derive_seed(*parts)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)  # such as torch.mps


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Context manager that seeds the CPU's default generator and restores its former state."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(derive_seed(*parts))
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Shifts int64 right logically (zero-filling); torch shifts arithmetically."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def uniform(seed: int, keys: Tensor, count: int) -> Tensor:
    """Returns counter-based uniform numbers: row ``i`` depends on ``seed`` and ``keys[i]`` alone.

    Args:
        seed: any integer, typically ``derive_seed(seed, "augment", view)``.
        keys: [B] int64, the keys of the examples.
        count: how many numbers an example gets.

    Returns:
        [B, count] float32 in [0, 1), by splitmix64 over (seed, key, column).
    """
    columns = torch.arange(count, device=keys.device)
    z = _finalise(keys.long()[:, None] * _GOLDEN + derive_seed(seed)) + columns * _GOLDEN
    return _shift_right(_finalise(z), 40).float() / (1 << 24)


def _finalise(z: Tensor) -> Tensor:
    z = z + _GOLDEN
    z = (z ^ _shift_right(z, 30)) * _MIX1
    z = (z ^ _shift_right(z, 27)) * _MIX2
    return z ^ _shift_right(z, 31)
