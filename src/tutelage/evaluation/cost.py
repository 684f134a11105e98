"""Cost of a network: parameters and multiply-adds."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from tutelage.evaluation.predictions import eval_mode
from tutelage.models.tapped import arguments
from tutelage.types import Batch

log = logging.getLogger(__name__)
_uncounted: set[str] = set()  # warned of already


def parameters(module: nn.Module) -> int:
    """Returns the number of parameters of ``module``, trainable or not, a shared one once; buffers don't count."""
    return sum(p.numel() for p in module.parameters())


def multiply_adds(module: nn.Module, example: Sequence[int] | Batch) -> int | None:
    """Returns multiply-adds of one example in eval mode: matrix products (attention's, too) and convolutions.

    What else a network does (activations, normalisation, pooling, adding biases, ``nn.Bilinear``) is not counted.

    Nothing is computed: the forward runs on shapes alone, with the parameters and buffers swapped for meta tensors
    while it lasts. So the count is the same on every device; fused kernels that the counter would silently take for
    0 (torch 2.14 on a CPU: attention, ``nn.TransformerEncoder``, ``nn.LSTM``) are seen as the products they are made
    of; and modes, weights, running statistics and gradients stay as they are.

    Args:
        module: maps one floating-point batch, or the fields of one that it reads, to anything.
        example: shape of one example's ``input``, without the batch dimension; or a batch, of which one example counts.

    Returns:
        None, with one warning for each class, where the module can't be run on shapes alone: it needs values
        (``.item()``, a branch on a tensor), or does not take such an input. A figure of cost must not end a run.
    """
    tensors = {name: t.to("meta") for name, t in (*module.named_parameters(), *module.named_buffers())}
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), None)
    fields = example if isinstance(example, Mapping) else {"input": torch.empty(1, *example)}
    shapes = {
        name: torch.empty_like(x[:1], dtype=dtype if x.is_floating_point() else x.dtype, device="meta")
        for name, x in fields.items()
    }
    try:
        with (
            eval_mode(module),
            torch.no_grad(),
            FlopCounterMode(display=False, custom_mapping=_UNREGISTERED) as counter,
        ):
            functional_call(module, tensors, *arguments(module, shapes))
    except Exception as error:  # any: what runs is the user's
        if (name := type(module).__name__) not in _uncounted:
            _uncounted.add(name)
            why = (str(error) or type(error).__name__).splitlines()[0]
            log.warning("multiply-adds of %s are not known: it does not run on shapes alone (%s)", name, why)
        return None
    return counter.get_total_flops() // 2


ADDED = ("parameters", "multiply_adds", "seconds", "steps")  # facts of trainings that sum over those of one teacher


def total(counts: Iterable[float | None]) -> float | None:
    """Returns the sum; None where one of them is not known."""
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)


def _product_with_vector(matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(matrix)


# The products that torch's counter has no formula for, and so would take for 0.
_UNREGISTERED = {torch.ops.aten.mv: _product_with_vector, torch.ops.aten.dot: _product_with_vector}
