"""Cost of a network: parameters and multiply-adds."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from tutelage.compat.torch import SPARSE_PRODUCTS
from tutelage.evaluation.predictions import eval_mode
from tutelage.models.tapped import arguments
from tutelage.types import Batch, is_shared

log = logging.getLogger(__name__)
_MASK = "mask?"  # as a network reads it that can do without
_uncounted: set[str] = set()  # classes already warned of


def parameters(module: nn.Module) -> int:
    """Returns the number of parameters of ``module``, trainable or not, shared ones once, without buffers."""
    return sum(p.numel() for p in module.parameters())


def multiply_adds(module: nn.Module, example: Sequence[int] | Batch) -> int | None:
    """Returns multiply-adds of one example in eval mode: matrix products (including attention) and convolutions.

    Other operations (activations, normalisation, pooling, adding biases, ``nn.Bilinear``) are not counted.

    Nothing is computed: the forward pass runs on shapes only, with parameters and buffers temporarily replaced by meta
    tensors. So the count is the same on every device; fused kernels that torch's counter silently counts as
    0 (torch 2.14 on a CPU: attention, ``nn.TransformerEncoder``, ``nn.LSTM``) are counted as their matrix
    products; modes, weights, running statistics and gradients do not change.

    Args:
        module: maps one floating-point batch, or the fields of one that it reads, to anything.
        example: shape of one example's ``input``, without the batch dimension; or a batch, of which one example is used
            and all that is of the whole batch: a network of graphs computes its answer for a node from all nodes.

    Returns:
        None, with one warning per class, if the module cannot run on shapes only: it needs values
        (``.item()``, a branch on a tensor), or does not accept such an input. This must not end a run.
    """
    tensors = {name: t.to("meta") for name, t in (*module.named_parameters(), *module.named_buffers())}
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), None)
    fields = example if isinstance(example, Mapping) else {"input": torch.empty(1, *example)}
    if _MASK in (module.__dict__.get("_reads") or {}).values():  # lengths are values; the example counts as unpadded
        fields = {name: x for name, x in fields.items() if f"{name}?" != _MASK}
    shapes = {
        name: torch.empty_like(
            x if is_shared(name) else x[:1], dtype=dtype if x.is_floating_point() else x.dtype, device="meta"
        )
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
    """Returns the sum; None if a summand is unknown."""
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)


def _product_with_vector(matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(matrix)


def _sparse_product(weight: Sequence[int], indices: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * indices[0] * weight[1]


# Products without a formula in torch's counter, which would count them as 0.
_UNREGISTERED = {
    torch.ops.aten.mv: _product_with_vector,
    torch.ops.aten.dot: _product_with_vector,
    **dict.fromkeys(SPARSE_PRODUCTS, _sparse_product),
}
