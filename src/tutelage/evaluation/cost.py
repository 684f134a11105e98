"""What a network costs: parameters and multiply-adds."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import eval_mode


def parameters(module: nn.Module) -> int:
    """How many parameters ``module`` has, trainable or not, a shared one once; buffers don't count."""
    return sum(p.numel() for p in module.parameters())


def multiply_adds(module: nn.Module, input_shape: Sequence[int]) -> int:
    """The multiply-adds of one example in eval mode: matrix products (attention's, too) and convolutions.

    What else a network does (activations, normalisation, pooling, adding biases, ``nn.Bilinear``) is not counted.

    Nothing is computed: the forward runs on shapes alone, with the parameters and buffers swapped for meta tensors
    while it lasts. So the count is the same on every device; fused kernels that the counter would silently take for
    0 (torch 2.14 on a CPU: attention, ``nn.TransformerEncoder``, ``nn.LSTM``) are seen as the products they are made
    of; and modes, weights, running statistics and gradients stay as they are.

    Args:
        module: maps one floating-point batch to anything.
        input_shape: of one example, without the batch dimension.

    Raises:
        TutelageError: the module does not run on such an input, or needs the values and not only the shapes.
    """
    tensors = {name: t.to("meta") for name, t in (*module.named_parameters(), *module.named_buffers())}
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), None)
    example = torch.empty(1, *input_shape, dtype=dtype, device="meta")
    try:
        with (
            eval_mode(module),
            torch.no_grad(),
            FlopCounterMode(display=False, custom_mapping=_UNREGISTERED) as counter,
        ):
            functional_call(module, tensors, example)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise TutelageError(
            f"multiply-adds: {type(module).__name__} does not run on shape {list(example.shape)}: {error}"
        ) from error
    return counter.get_total_flops() // 2


def _product_with_vector(matrix: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(matrix)


# The products that torch's counter has no formula for, and so would take for 0.
_UNREGISTERED = {torch.ops.aten.mv: _product_with_vector, torch.ops.aten.dot: _product_with_vector}
