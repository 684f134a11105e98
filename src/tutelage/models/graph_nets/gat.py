"""Graph attention network (Veličković et al. 2018)."""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.models.blocks import check_positive
from tutelage.models.graph_nets.layers import (
    NodeRows,
    SparseLinear,
    check_widths,
    glorot,
    propagated,
    softmax_by_node,
    with_loops,
)


class GAT(nn.Module):
    """Graph attention network: a node is the mean of its neighbours and itself, weighted by attention in each head.

    ``e_ji = LeakyReLU(a_l · W h_j + a_r · W h_i)`` with slope 0.2, softmax over the edges j → i that enter i, with a
    loop. Hidden layers concatenate their heads and end in ELU, the last layer is the mean over its heads.

    Args:
        input_shape: ``[F]``.
        widths: units of one head per hidden layer; published: [8].
        num_classes: number of logits.
        heads: of each hidden layer; published: 8.
        last_heads: of the last layer; published: 1 (Cora, Citeseer).
        dropout: chance that an attention weight, and an input of a layer after the first, is dropped; published: 0.6.
        input_dropout: chance that a feature of a node is dropped; published: 0.6.

    Shape:
        node [B], edges [2, E], columns [Z], offsets [N], values [Z] → logits [B, C].

    Veličković et al., "Graph Attention Networks", 2018, arXiv:1710.10903.

    Raises:
        TutelageError: a size is not positive, or there is no hidden layer.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        widths: Sequence[int],
        num_classes: int,
        heads: int = 8,
        last_heads: int = 1,
        dropout: float = 0.6,
        input_dropout: float = 0.0,
    ):
        super().__init__()
        check_widths("GAT", widths)
        check_positive("GAT", input_shape=input_shape, widths=widths, num_classes=num_classes)
        check_positive("GAT", heads=heads, last_heads=last_heads)
        self.dropout, self.input_dropout = dropout, input_dropout
        self.heads = [heads] * len(widths) + [last_heads]
        outputs = [*widths, num_classes]
        self.first = SparseLinear(prod(input_shape), heads * outputs[0], bias=False)
        self.later = nn.ModuleList(
            glorot(nn.Linear(heads * before, own * after, bias=False))
            for before, after, own in zip(outputs[:-1], outputs[1:], self.heads[1:], strict=True)
        )
        shapes = [(1, own, width) for own, width in zip(self.heads, outputs, strict=True)]
        self.sent = nn.ParameterList(nn.init.xavier_uniform_(torch.empty(shape)) for shape in shapes)
        self.received = nn.ParameterList(nn.init.xavier_uniform_(torch.empty(shape)) for shape in shapes)
        self.biases = nn.ParameterList(torch.zeros(heads * width) for width in widths)
        self.biases.append(torch.zeros(num_classes))
        self.hidden = nn.ModuleList(NodeRows() for _ in widths)

    def forward(self, node: Tensor, edges: Tensor, columns: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
        """Returns logits of the nodes."""
        edges = with_loops(edges, len(offsets))
        states = self.first(columns, offsets, F.dropout(values, self.input_dropout, self.training))
        for number, (layer, rows) in enumerate(zip(self.later, self.hidden, strict=True)):
            states = F.elu(self._attended(states, edges, number).flatten(1) + self.biases[number])
            rows(states, node)
            states = layer(F.dropout(states, self.dropout, self.training))
        last = self._attended(states, edges, len(self.later)).mean(1) + self.biases[-1]
        return last.index_select(0, node)

    def _attended(self, states: Tensor, edges: Tensor, number: int) -> Tensor:
        """Returns the weighted means [N, heads, D] of a layer."""
        states = states.unflatten(1, (self.heads[number], -1))
        sent, received = ((states * vector[number]).sum(-1) for vector in (self.sent, self.received))  # [N, heads]
        score = F.leaky_relu(sent[edges[0]] + received[edges[1]], 0.2)
        weights = F.dropout(softmax_by_node(score, edges[1], len(states)), self.dropout, self.training)
        return propagated(states, edges, weights[..., None])
