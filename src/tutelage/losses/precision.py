"""Makes losses compute in float32 or better for inputs of any precision.

KL of bf16 logits at T = 20 has an error of 47 % and can be negative; after ``.float()`` the error is within 3e-5.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from tutelage.errors import TutelageError

Forward = TypeVar("Forward", bound=Callable[..., Any])


_HALF = (torch.float16, torch.bfloat16)


def _tensors(x: Any) -> Iterator[Tensor]:
    """Yields the tensors in nested lists, tuples and dicts."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (list, tuple)):
        for value in x:
            yield from _tensors(value)
    elif isinstance(x, dict):
        yield from _tensors(list(x.values()))


def at_least_float32(x: Any) -> Any:
    """Converts half-precision tensors (also in lists, tuples and dicts) to float32; returns all else unchanged."""
    if isinstance(x, Tensor):
        return x.float() if x.dtype in _HALF else x
    if isinstance(x, (list, tuple)):
        return type(x)(at_least_float32(v) for v in x)
    if isinstance(x, dict):
        return {k: at_least_float32(v) for k, v in x.items()}
    return x


def in_float32(forward: Forward) -> Forward:
    """Decorates a loss's ``forward``: half-precision arguments become float32 and autocast is off inside."""

    @wraps(forward)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        found = given if all(type(x) is Tensor for x in given) else list(_tensors(given))
        if any(tensor.dtype in _HALF for tensor in found):
            args, kwargs = at_least_float32(args), at_least_float32(kwargs)
        kind = found[0].device.type if found else "cpu"
        if not torch.is_autocast_enabled(kind):
            return forward(self, *args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return forward(self, *args, **kwargs)

    return wrapped  # type: ignore[return-value]


def check_same_shape(student: Tensor, teacher: Tensor, what: str) -> None:
    """Checks that the shapes are equal: [B, 10] and [B, 1] would broadcast silently.

    Raises:
        TutelageError: names both shapes.
    """
    if student.shape != teacher.shape:
        raise TutelageError(
            f"{what}: student {list(student.shape)} and teacher {list(teacher.shape)} must have the same shape"
        )
