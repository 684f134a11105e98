"""APPNP (Gasteiger et al. 2019)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.models.blocks import check_positive
from tutelage.models.graph_nets.layers import Layers, propagated, symmetric, with_loops


class APPNP(Layers):
    """A perceptron whose answers spread over the graph: ``Z ← (1 − α) Â Z + α H``, K times, from Z = H.

    ``Â = D^-½ (A + I) D^-½``: personalised PageRank by power iteration.

    Args:
        input_shape: ``[F]``.
        widths: units per hidden layer; published: [64].
        num_classes: number of logits.
        steps: K; published: 10.
        teleport: α; published: 0.1.
        dropout: chance that a hidden unit is dropped; published: 0.5.
        input_dropout: chance that a feature of a node is dropped; published: 0.5.
        edge_dropout: chance that an entry of Â is dropped, in each step; published: 0.5.

    Shape:
        node [B], edges [2, E], columns [Z], offsets [N], values [Z] → logits [B, C].

    Gasteiger, Bojchevski and Günnemann, "Predict then Propagate", 2019, arXiv:1810.05997.

    Raises:
        TutelageError: a size is not positive, α is not in (0, 1], or there is no hidden layer.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        widths: Sequence[int],
        num_classes: int,
        steps: int = 10,
        teleport: float = 0.1,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
        edge_dropout: float = 0.0,
    ):
        super().__init__("APPNP", input_shape, widths, num_classes)
        if not 0 < teleport <= 1:
            raise TutelageError(f"APPNP: teleport must be above 0 and at most 1; found {teleport}")
        check_positive("APPNP", steps=steps)
        self.steps, self.teleport = steps, teleport
        self.dropout, self.input_dropout, self.edge_dropout = dropout, input_dropout, edge_dropout

    def forward(self, node: Tensor, edges: Tensor, columns: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
        """Returns logits of the nodes."""
        states = self.first(columns, offsets, F.dropout(values, self.input_dropout, self.training))
        for layer, rows in zip(self.later, self.hidden, strict=True):
            states = F.relu(states)
            rows(states, node)
            states = layer(F.dropout(states, self.dropout, self.training))
        edges = with_loops(edges, len(offsets))
        weights, own = symmetric(edges, len(offsets), states), self.teleport * states
        for _ in range(self.steps):
            dropped = F.dropout(weights, self.edge_dropout, self.training)
            states = (1 - self.teleport) * propagated(states, edges, dropped) + own
        return states.index_select(0, node)
