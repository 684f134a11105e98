"""A decoder-only transformer for language models."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.blocks import check_positive

POSITIONS = ("rotary", "learned")


class CausalLM(nn.Module):
    """Predicts the next token at every position: tokens [B, L] → logits [B, L, V].

    Pre-norm blocks of causal attention and a two-layer perceptron, RMS normalisation, no biases; position i sees
    positions 0 … i alone, so padding at the end changes nothing before it.

    Args:
        input_shape: [the greatest L].
        num_classes: V, the size of the vocabulary.
        width: d, a multiple of ``heads``.
        depth: number of blocks.
        heads: of attention; d / heads is even with rotary positions.
        expansion: width of the perceptrons, in d.
        positions: ``rotary`` (Su et al. 2021, arXiv:2104.09864) or ``learned``.
        tied: whether the classifier is the embedding.
        dropout: of embeddings, attention and both branches.

    Raises:
        TutelageError: a number does not fit, or a sequence is longer than L.

    Radford et al., "Language Models are Unsupervised Multitask Learners", 2019; Vaswani et al. 2017, arXiv:1706.03762.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        width: int = 256,
        depth: int = 6,
        heads: int = 4,
        expansion: float = 4.0,
        positions: str = "rotary",
        tied: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_positive("CausalLM", input_shape=input_shape, num_classes=num_classes, width=width, depth=depth)
        check_positive("CausalLM", heads=heads)
        if len(input_shape) != 1:
            raise TutelageError(f"CausalLM takes sequences of tokens, input_shape [L]; found {list(input_shape)}")
        if positions not in POSITIONS:
            raise TutelageError(f"CausalLM.positions must be rotary or learned; found {positions!r}")
        if width % heads or (positions == "rotary" and width // heads % 2):
            raise TutelageError(
                f"CausalLM: width={width} of heads={heads} must be a multiple, and width / heads even with rotary "
                "positions"
            )
        [self.context], rotary = input_shape, positions == "rotary"
        self.embedding = nn.Embedding(num_classes, width)
        self.places = None if rotary else nn.Embedding(self.context, width)
        self.dropout = nn.Dropout(dropout)
        self.turns: Tensor | None
        self.register_buffer("turns", rotations(self.context, width // heads) if rotary else None, persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, round(expansion * width), dropout) for _ in range(depth))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, num_classes, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for name, weight in self.blocks.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.2.weight")):  # so that the sum of branches stays (GPT-2)
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * depth))
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the logits."""
        length = tokens.shape[1]
        if length > self.context:
            raise TutelageError(f"CausalLM has a context of {self.context} tokens; found sequences of {length}")
        x = self.embedding(tokens)
        if self.places is not None:
            x = x + self.places.weight[:length]
        x = self.dropout(x)
        # turns[:, :length] is contiguous for one length alone, which a program of torch.export then takes alone, or not
        turns = None if self.turns is None else torch.stack([part[:length] for part in self.turns])
        for block in self.blocks:
            x = block(x, turns)
        logits: Tensor = self.head(self.norm(x))
        return logits


class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)).

    Args:
        width: d.
        heads: of attention.
        hidden: width of the perceptron.
        dropout: of both branches and of attention.

    Shape: [B, L, d] → [B, L, d].
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(width), Attention(width, heads, dropout)
        self.mlp_norm = nn.RMSNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width, bias=False))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, turns: Tensor | None) -> Tensor:
        """Returns the block's output."""
        x = x + self.dropout(self.attention(self.attention_norm(x), turns))
        branch: Tensor = self.dropout(self.mlp(self.mlp_norm(x)))
        return x + branch


class Attention(nn.Module):
    """Causal self-attention (torch's ``scaled_dot_product_attention``).

    Args:
        width: d.
        heads: number of heads.
        dropout: of the attention weights.

    Shape: [B, L, d] → [B, L, d].
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, turns: Tensor | None) -> Tensor:
        """Returns the attended values."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        if turns is not None:
            query, key = rotated(query, turns), rotated(key, turns)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        found: Tensor = self.out(attended.transpose(1, 2).flatten(-2))
        return found


def rotations(context: int, size: int) -> Tensor:
    """Returns cosines and sines of every position, [2, L, size / 2], at frequencies 10000^(−2i/size)."""
    frequencies = 10000.0 ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.arange(context, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Returns x [B, heads, L, size] with each pair (i, i + size/2) turned by the angle of its position."""
    cosine, sine = turns.to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
