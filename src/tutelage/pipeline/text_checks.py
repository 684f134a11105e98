"""Checks whether networks take all token ids and lengths of data that are texts, before anything is trained."""

import torch
from torch import Tensor, nn

from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.types import Batch


def check_ids(role: str, net: nn.Module, data: Data) -> None:
    """Runs a network once on the highest token id, at the greatest length that the data have.

    Args:
        role: the network, for messages.
        net: a tapped network in eval mode, on the CPU.
        data: loaded.

    Raises:
        TutelageError: it has fewer embeddings than there are ids, or fewer positions than tokens.
    """
    batch = data.sample(1)
    if data.vocab_size is None or batch["input"].ndim != 2:
        return
    width = data.input_shape[0]
    if (why := _refused(net, _probe(batch, width, data.vocab_size - 1))) is None:
        return
    if _refused(net, _probe(batch, width, 0)) is None:
        raise TutelageError(
            f"the {role} has fewer embeddings than the data have token ids, {data.vocab_size} (data.vocab_size): it is "
            f"of another tokenizer, or its own vocab_size is too small ({why})"
        )
    raise TutelageError(f"the {role} can't read texts of {width} tokens (data.max_length): {why}")


def _probe(batch: Batch, width: int, number: int) -> Batch:
    """Returns one example that is ``width`` tokens long, all of them ``number``."""
    own = batch["input"].shape[1]

    def widened(name: str, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != own or x.is_floating_point():
            return x
        value = number if name == "input" else int(name == "mask")
        return torch.full((1, width), value, dtype=x.dtype)

    return {name: widened(name, x) for name, x in batch.items()}


def _refused(net: nn.Module, batch: Batch) -> str | None:
    """Returns why a network fails on a batch; None if it does not."""
    try:
        with torch.no_grad():
            net(batch)
    except (IndexError, RuntimeError, ValueError) as error:
        return (str(error) or type(error).__name__).strip().splitlines()[0]
    return None
