"""Convolutional sentence classifier (Kim 2014)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.errors import TutelageError
from tutelage.models.blocks import chain, check_positive
from tutelage.models.tokens import embedded, embedding_table, without_padding
from tutelage.models.word_vectors import Vectors, fill_table


class TextCNN(nn.Module):
    """Embeddings, convolutions of several widths over the tokens, the maximum over all places, a linear classifier.

    A convolution has a place for each real token (a sentence shorter than a window is continued by zeros), and the
    maximum is over these places alone: padding changes neither logits nor gradients. Kim's ReLU before the maximum is
    here after it, which is the same.

    Args:
        vocab_size: number of token ids.
        num_classes: number of logits.
        width: of an embedding; Kim: 300, from word2vec.
        windows: how many tokens each convolution sees; Kim: 3, 4, 5.
        maps: features a window; Kim: 100.
        dropout: chance that a feature is dropped; Kim: 0.5.
        vectors: where embeddings of words come from (:class:`~tutelage.models.word_vectors.Vectors`), which have a
            width of their own; null: drawn.
        train_vectors: whether they are trained further.

    Shape:
        input [B, L] integers, mask [B, L] bools, true for real tokens (absent: all are) → logits [B, C].

    Raises:
        TutelageError: the vocabulary is not known, a size is not positive, or the vectors can't be read.

    Kim, "Convolutional Neural Networks for Sentence Classification", 2014, arXiv:1408.5882.
    """

    def __init__(
        self,
        vocab_size: int | None,
        num_classes: int,
        width: int = 64,
        windows: Sequence[int] = (1, 3, 5),
        maps: int = 64,
        dropout: float = 0.4,
        vectors: Vectors | None = None,
        train_vectors: bool = True,
    ):
        super().__init__()
        if not windows:
            raise TutelageError("TextCNN: windows must name at least one width; found none")
        check_positive("TextCNN", num_classes=num_classes, windows=windows, maps=maps)
        width = width if vectors is None else vectors.width
        self.tokens = embedding_table("TextCNN", vocab_size, width)
        if vectors is not None:
            fill_table(self.tokens, vectors)
        self.tokens.weight.requires_grad_(train_vectors)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, maps, window) for window in windows)
        self.head = nn.Sequential(
            chain(
                embedding=nn.ReLU(), dropout=nn.Dropout(dropout), classifier=nn.Linear(maps * len(windows), num_classes)
            )
        )

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns logits [B, C]."""
        states = without_padding(embedded(self.tokens, input, "TextCNN"), mask).transpose(1, 2)
        found = [self._highest(convolution, states, mask) for convolution in self.convolutions]
        logits: Tensor = self.head(torch.cat(found, 1))
        return logits

    def _highest(self, convolution: nn.Module, states: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the greatest value of each map over the places of real tokens, [B, maps]."""
        around = int(convolution.weight.shape[2]) - 1  # type: ignore[index]
        maps: Tensor = convolution(functional.pad(states, (around // 2, around - around // 2)))
        if mask is not None:
            maps = maps.masked_fill(~mask[:, None], -torch.inf)
        return maps.amax(2)
