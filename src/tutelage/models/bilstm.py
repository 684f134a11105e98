"""Bidirectional LSTM for sentences, the student of BERT (Tang et al. 2019)."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from tutelage.models.blocks import chain, check_positive
from tutelage.models.tokens import embedded, embedding_table
from tutelage.models.word_vectors import Vectors, fill_table


class BiLSTM(nn.Module):
    """Embeddings, an LSTM in both directions, a hidden layer on both last states, a linear classifier.

    Sequences are packed: real tokens alone are read, in their order, wherever the padding stands, so that it changes
    neither logits nor gradients. The lengths are read on the host, as torch's packing wants them. Tracing, as for ONNX,
    which has no packing, reads the padding too and takes the states before it.

    Args:
        vocab_size: number of token ids.
        num_classes: number of logits.
        width: of an embedding; Tang et al.: 300. Vectors of a file have their own.
        hidden: units of each direction; Tang et al.: 150 or 300.
        layers: of the LSTM.
        units: of the hidden layer; Tang et al.: 200 or 400.
        dropout: chance that a hidden unit is dropped; Tang et al.: 0.1.
        vectors: where embeddings of words come from (:class:`~tutelage.models.word_vectors.Vectors`); null: drawn.
        train_vectors: whether they are trained further.

    Shape:
        input [B, L] integers, mask [B, L] bools, true for real tokens (absent: all are) → logits [B, C].

    Raises:
        TutelageError: the vocabulary is not known, a size is not positive, or the vectors can't be read.

    Tang et al., "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks", 2019, arXiv:1903.12136.
    """

    def __init__(
        self,
        vocab_size: int | None,
        num_classes: int,
        width: int = 64,
        hidden: int = 150,
        layers: int = 1,
        units: int = 200,
        dropout: float = 0.1,
        vectors: Vectors | None = None,
        train_vectors: bool = True,
    ):
        super().__init__()
        check_positive("BiLSTM", num_classes=num_classes, hidden=hidden, layers=layers, units=units)
        width = width if vectors is None else vectors.width
        self.tokens = embedding_table("BiLSTM", vocab_size, width)
        if vectors is not None:
            fill_table(self.tokens, vectors)
        self.tokens.weight.requires_grad_(train_vectors)
        self.lstm = nn.LSTM(width, hidden, layers, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(
            chain(
                hidden=nn.Linear(2 * hidden, units),
                embedding=nn.ReLU(),
                dropout=nn.Dropout(dropout),
                classifier=nn.Linear(units, num_classes),
            )
        )

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns logits [B, C]."""
        states = embedded(self.tokens, input, "BiLSTM")
        if mask is None:
            _, (last, _) = self.lstm(states)
        elif torch.jit.is_tracing():
            last = self._last_without_packing(states, mask)
        else:
            first = mask.logical_not().int().argsort(dim=1, stable=True)  # real tokens, in their order, before padding
            states = states.take_along_dim(first[..., None], 1)
            lengths = mask.sum(1).clamp(min=1).cpu()
            packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
            _, (last, _) = self.lstm(packed)
        logits: Tensor = self.head(torch.cat([last[-2], last[-1]], 1))  # of the last layer, both directions
        return logits

    def _last_without_packing(self, states: Tensor, mask: Tensor) -> Tensor:
        """Returns what packing gives, the last states [2, B, H] of the last layer, by operators that ONNX has.

        A layer's two directions run one by one over real tokens and the padding after them, in order and reversed; the
        state at the last real token is taken.
        """
        count = mask.sum(1, keepdim=True).clamp(min=1)
        place = torch.arange(states.shape[1], device=states.device)[None]
        is_here = (mask.long().cumsum(1)[:, None] == place[..., None] + 1) & mask[:, None]  # [B, place, token]
        states = _rows(states, is_here.long().argmax(2))
        backwards = (count - 1 - place).clamp(min=0)
        for layer in range(self.lstm.num_layers):
            forth = self._direction(states, f"l{layer}")
            back = self._direction(_rows(states, backwards), f"l{layer}_reverse")
            states = torch.cat([forth, _rows(back, backwards)], 2)
        return torch.cat([_rows(forth, count - 1), _rows(back, count - 1)], 1).transpose(0, 1)

    def _direction(self, states: Tensor, name: str) -> Tensor:
        """Returns the states [B, L, H] of one direction of one layer, in the order in which it reads."""
        weights = [getattr(self.lstm, f"{kind}_{name}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        begin = states.new_zeros(1, states.shape[0], self.lstm.hidden_size)
        return torch.lstm(states, [begin, begin], weights, True, 1, 0.0, False, False, True)[0]


def _rows(states: Tensor, places: Tensor) -> Tensor:
    """Returns states [B, L, D] at the places [B, K] of each example: [B, K, D]."""
    return states.gather(1, places[..., None].expand(*places.shape, states.shape[2]))
