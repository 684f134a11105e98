"""A small transformer encoder for sentences, with BERT's parts under names of our own."""

from torch import Tensor, nn
from torch.nn import functional

from tutelage.errors import TutelageError
from tutelage.models.blocks import check_positive
from tutelage.models.tokens import embedded, embedding_table, first_token, mean_over_tokens

_NORMS = ("post", "pre")
_POOLS = {"first": first_token, "mean": mean_over_tokens}
_STD = 0.02  # of all initial weights, as BERT's


class TextTransformer(nn.Module):
    """Embeddings, layers of attention and of two linear ones, a vector a sentence, a linear classifier.

    ``embeddings`` gives the states before the first layer and ``layers.i`` those after layer i, [B, L, d];
    ``layers.i.query``, ``.key`` and ``.value`` are linear layers of their own, whose outputs losses read; ``embedding``
    is the vector that enters the classifier. Keys of padding get no attention, so that it changes neither logits
    nor gradients; the states at padded positions are arbitrary.

    Args:
        vocab_size: number of token ids.
        num_classes: number of logits.
        width: d of all states.
        layers: their number.
        heads: of the attention.
        inner: units between the two linear layers; null: 4·width.
        length: greatest number of tokens of an example.
        segments: number of segment ids, for pairs of sentences.
        norm: ``post``, normalisation after every sum (BERT), or ``pre``, before every part and once at the end.
        pool: what enters the classifier: the ``mean`` over real tokens, or the ``first`` one.
        dropout: of embeddings, attention and the outputs of both parts of a layer.

    Shape:
        input [B, L] integers, mask [B, L] bools, true for real tokens (absent: all are), segment [B, L] integers →
        logits [B, C].

    Raises:
        TutelageError: the vocabulary is not known, a size is not positive, the width is no multiple of the heads,
            ``norm`` or ``pool`` is none of these.

    Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762; Devlin et al., "BERT", 2019, arXiv:1810.04805.
    """

    def __init__(
        self,
        vocab_size: int | None,
        num_classes: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        inner: int | None = None,
        length: int = 128,
        segments: int = 2,
        norm: str = "post",
        pool: str = "mean",
        dropout: float = 0.1,
    ):
        super().__init__()
        inner = 4 * width if inner is None else inner
        check_positive("TextTransformer", num_classes=num_classes, layers=layers, heads=heads, inner=inner)
        if width % heads:
            raise TutelageError(f"TextTransformer: width must be a multiple of the heads; found {width} and {heads}")
        for argument, found, known in (("norm", norm, _NORMS), ("pool", pool, tuple(_POOLS))):
            if found not in known:
                raise TutelageError(f"TextTransformer.{argument}: expected {' or '.join(known)}, found {found!r}")
        self.pool = _POOLS[pool]
        self.embeddings = Embeddings(vocab_size, width, length, segments, norm == "post", dropout)
        self.layers = nn.ModuleList(Layer(width, heads, inner, norm == "pre", dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width) if norm == "pre" else nn.Identity()
        self.embedding = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=_STD)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)

    def forward(self, input: Tensor, mask: Tensor | None = None, segment: Tensor | None = None) -> Tensor:
        """Returns logits [B, C]."""
        states = self.embeddings(input, segment)
        for layer in self.layers:
            states = layer(states, mask)
        logits: Tensor = self.classifier(self.embedding(self.pool(self.norm(states), mask)))
        return logits


class Embeddings(nn.Module):
    """The sum of a token's, its position's and its segment's embedding, with dropout.

    Args:
        vocab_size: number of token ids.
        width: of all states.
        length: greatest number of tokens.
        segments: number of segment ids.
        normed: whether the sum is normalised.
        dropout: chance that an element is dropped.

    Raises:
        TutelageError: the vocabulary is not known, a size is not positive, or an example has too many tokens.
    """

    def __init__(self, vocab_size: int | None, width: int, length: int, segments: int, normed: bool, dropout: float):
        super().__init__()
        check_positive("TextTransformer", length=length, segments=segments)
        self.tokens = embedding_table("TextTransformer", vocab_size, width)
        self.positions = nn.Embedding(length, width)
        self.segments = nn.Embedding(segments, width)
        self.norm = nn.LayerNorm(width) if normed else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, segment: Tensor | None = None) -> Tensor:
        """Returns the states [B, L, d]."""
        states = embedded(self.tokens, ids, "TextTransformer")
        if states.shape[1] > (longest := self.positions.num_embeddings):
            raise TutelageError(
                f"TextTransformer takes up to {longest} tokens; found {states.shape[1]}: shorten the texts, or raise "
                "the model's length"
            )
        states = states + self.positions.weight[: states.shape[1]]
        states = states + (self.segments.weight[0] if segment is None else self.segments(segment))
        found: Tensor = self.dropout(self.norm(states))
        return found


class Layer(nn.Module):
    """Attention and two linear layers, each added to its input.

    Args:
        width: of all states.
        heads: of the attention.
        inner: units between the two linear layers.
        pre: whether each part's input is normalised, rather than its sum with the output.
        dropout: of the attention and of the outputs of both parts.
    """

    def __init__(self, width: int, heads: int, inner: int, pre: bool, dropout: float):
        super().__init__()
        self.heads, self.pre = heads, pre
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.attention_norm, self.inner_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inner = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the states [B, L, d] after this layer."""
        if self.pre:
            states = states + self.dropout(self._attention(self.attention_norm(states), mask))
            return states + self.dropout(self.inner(self.inner_norm(states)))
        states = self.attention_norm(states + self.dropout(self._attention(states, mask)))
        found: Tensor = self.inner_norm(states + self.dropout(self.inner(states)))
        return found

    def _attention(self, states: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (
            part(states).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        rate = self.dropout.p if self.training else 0.0
        shown = None if mask is None else mask[:, None, None]
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=shown, dropout_p=rate)
        mixed: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return mixed
