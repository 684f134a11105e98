"""Graph convolutional network (Kipf & Welling 2017)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.models.graph_nets.layers import Layers, propagated, symmetric, with_loops


class GCN(Layers):
    """Graph convolutional network: ``H' = ReLU(Â H W + b)``, with ``Â = D^-½ (A + I) D^-½``.

    Args:
        input_shape: ``[F]``.
        widths: units per hidden layer; published: [16], [64] and more are usual.
        num_classes: number of logits.
        dropout: chance that a hidden unit is dropped; published: 0.5.
        input_dropout: chance that a feature of a node is dropped; published: 0.5.

    Shape:
        node [B], edges [2, E], columns [Z], offsets [N], values [Z] → logits [B, C].

    Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks", 2017, arXiv:1609.02907.

    Raises:
        TutelageError: a size is not positive, or there is no hidden layer.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        widths: Sequence[int],
        num_classes: int,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
    ):
        super().__init__("GCN", input_shape, widths, num_classes, bias=False)
        self.biases = nn.ParameterList(torch.zeros(width) for width in [*widths, num_classes])
        self.dropout, self.input_dropout = dropout, input_dropout

    def forward(self, node: Tensor, edges: Tensor, columns: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
        """Returns logits of the nodes."""
        values = F.dropout(values, self.input_dropout, self.training)
        states = self.first(columns, offsets, values)
        edges = with_loops(edges, len(offsets))
        weights = symmetric(edges, len(offsets), states)
        for layer, rows, bias in zip(self.later, self.hidden, self.biases, strict=False):
            states = F.relu(propagated(states, edges, weights) + bias)
            rows(states, node)
            states = layer(F.dropout(states, self.dropout, self.training))
        return propagated(states, edges, weights).index_select(0, node) + self.biases[-1]
