"""Shared parts of networks on token ids: tables of embeddings, and states that padding can't reach."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.blocks import check_positive

_SPREAD = 0.25


def embedding_table(name: str, vocab_size: int | None, width: int) -> nn.Embedding:
    """Returns a table of ``vocab_size`` embeddings, drawn from U(−¼, ¼) as Kim 2014 does for words without a vector.

    From torch's N(0, 1) they hardly move at the learning rates of Adam, and the network learns from random features.

    Args:
        name: of the network, for messages.
        vocab_size: the number of token ids; None where neither the data nor the config say it.
        width: of an embedding.

    Raises:
        TutelageError: the number of ids is not known, or a size is not positive.
    """
    if vocab_size is None:
        raise TutelageError(
            f"{name} reads token ids: it needs vocab_size, their number (data.vocab_size of data that know it, "
            "data.student_vocab_size with data.student_tokenizer); found null"
        )
    check_positive(name, vocab_size=vocab_size, width=width)
    table = nn.Embedding(vocab_size, width)
    nn.init.uniform_(table.weight, -_SPREAD, _SPREAD)
    return table


def embedded(table: nn.Embedding, ids: Tensor, name: str) -> Tensor:
    """Returns the embeddings [B, L, d] of ids [B, L].

    Raises:
        TutelageError: the input is no batch of integers, or an id is outside of the table (checked on a CPU, where it
            costs nothing).
    """
    if ids.is_floating_point() or ids.dim() != 2:
        raise TutelageError(f"{name} reads token ids, integers [B, L]; found {ids.dtype} {list(ids.shape)}")
    checked = ids.device.type == "cpu" and not torch.compiler.is_exporting()  # a program has no branch on values
    if checked and ids.numel() and (highest := int(ids.max())) >= table.num_embeddings:
        raise TutelageError(f"{name} has a vocabulary of {table.num_embeddings} ids; found the id {highest}")
    found: Tensor = table(ids)
    return found


def without_padding(states: Tensor, mask: Tensor | None) -> Tensor:
    """Returns states [B, L, d] with 0 where ``mask`` [B, L] is false; the gradient there is 0 too."""
    return states if mask is None else states.masked_fill(~mask[..., None], 0.0)


def mean_over_tokens(states: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the mean [B, d] of the states [B, L, d] of real tokens; 0 where there is none."""
    if mask is None:
        return states.mean(1)
    return without_padding(states, mask).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def first_token(states: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the states [B, d] of the first real tokens."""
    if mask is None:
        return states[:, 0]
    return states[torch.arange(len(states), device=states.device), mask.int().argmax(1)]
