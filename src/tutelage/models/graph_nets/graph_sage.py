"""GraphSAGE (Hamilton et al. 2017)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.models.graph_nets.layers import Layers, degrees, propagated, with_loops


class GraphSAGE(Layers):
    """GraphSAGE with the whole neighbourhood of a node, without sampling.

    ``gcn``: ``h'_i = W · mean of h over i and its neighbours + b``. ``mean``: ``h'_i = W_1 h_i + W_2 · mean of h over
    its neighbours + b``, which is 0 for a node without any. ReLU between layers; rows are not normalised.

    GLNN's teacher is ``gcn``, in a library in which the node itself counts twice, with a sample of five neighbours.

    Args:
        input_shape: ``[F]``.
        widths: units per hidden layer; GLNN: [128].
        num_classes: number of logits.
        aggregator: ``gcn`` or ``mean``.
        dropout: chance that a hidden unit is dropped; GLNN: 0.
        input_dropout: chance that a feature of a node is dropped.

    Shape:
        node [B], edges [2, E], columns [Z], offsets [N], values [Z] → logits [B, C].

    Hamilton, Ying and Leskovec, "Inductive Representation Learning on Large Graphs", 2017, arXiv:1706.02216.

    Raises:
        TutelageError: an argument is out of range.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        widths: Sequence[int],
        num_classes: int,
        aggregator: str = "gcn",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ):
        if aggregator not in ("gcn", "mean"):
            raise TutelageError(f"GraphSAGE: aggregator must be gcn or mean; found {aggregator!r}")
        super().__init__("GraphSAGE", input_shape, widths, num_classes, 1 if aggregator == "gcn" else 2)
        self.own, self.dropout, self.input_dropout = aggregator == "mean", dropout, input_dropout

    def forward(self, node: Tensor, edges: Tensor, columns: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
        """Returns logits of the nodes."""
        values = F.dropout(values, self.input_dropout, self.training)
        states = self.first(columns, offsets, values)
        edges = edges if self.own else with_loops(edges, len(offsets))
        weights = degrees(edges, len(offsets), states).reciprocal()[edges[1]][:, None]
        for layer, rows in zip(self.later, self.hidden, strict=True):
            states = F.relu(self._aggregated(states, edges, weights))
            rows(states, node)
            states = layer(F.dropout(states, self.dropout, self.training))
        return self._aggregated(states, edges, weights).index_select(0, node)

    def _aggregated(self, states: Tensor, edges: Tensor, weights: Tensor) -> Tensor:
        if not self.own:
            return propagated(states, edges, weights)
        own, others = states.chunk(2, -1)  # the mean of W·h is W times the mean
        return own + propagated(others, edges, weights)
