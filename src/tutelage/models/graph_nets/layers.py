"""Layers that all networks on the nodes of a graph use, in plain tensors.

They read the whole graph of a batch (:mod:`tutelage.data.graph.nodes`), compute every node and return the logits of the
batch's own. ``hidden.i`` is hidden layer i of these, after its activation and before dropout, [B, H].
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.blocks import check_positive


class SparseLinear(nn.Module):
    """A linear layer on sparse features, ``y = x·W + b``; weights by Glorot's uniform draw, no bias at first.

    Args:
        features: F.
        outputs: H.
        bias: whether there is one.

    Shape:
        columns [Z], offsets [N], values [Z] → [N, H].
    """

    def __init__(self, features: int, outputs: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        nn.init.xavier_uniform_(self.weight)

    def forward(self, columns: Tensor, offsets: Tensor, values: Tensor) -> Tensor:
        """Returns x·W + b of every node."""
        values = values.to(self.weight.dtype)
        product = F.embedding_bag(columns, self.weight, offsets, mode="sum", per_sample_weights=values)
        return product if self.bias is None else product + self.bias


class NodeRows(nn.Module):
    """Returns the rows of the batch's nodes; a module, so that they can be tapped."""

    def forward(self, states: Tensor, node: Tensor) -> Tensor:
        """Returns states [N, …] of the nodes [B]: [B, …]."""
        return states.index_select(0, node)


def with_loops(edges: Tensor, nodes: int) -> Tensor:
    """Returns the edges [2, E] and one from each node to itself, [2, E + N]."""
    return torch.cat([edges, torch.arange(nodes, device=edges.device).expand(2, -1)], 1)


def propagated(states: Tensor, edges: Tensor, weights: Tensor) -> Tensor:
    """Returns for each node the weighted sum over its incoming edges, ``y_i = Σ_(j→i) w_ji · x_j``.

    Args:
        states: [N, …]; sums are in the wider type of these and ``weights``.
        edges: [2, E].
        weights: [E, …], of as many axes as ``states``.
    """
    sent = states.index_select(0, edges[0]) * weights
    return sent.new_zeros(states.shape).index_add(0, edges[1], sent).to(states.dtype)


def degrees(edges: Tensor, nodes: int, like: Tensor) -> Tensor:
    """Returns the number of incoming edges of each node, [N], in the type of ``like``, at least float32."""
    ones = torch.ones(edges.shape[1], dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
    return ones.new_zeros(nodes).index_add(0, edges[1], ones)


def symmetric(edges: Tensor, nodes: int, like: Tensor) -> Tensor:
    """Returns the weights of ``D^-½ A D^-½``, [E, 1]; of edges with loops."""
    root = degrees(edges, nodes, like).rsqrt()
    return (root[edges[0]] * root[edges[1]])[:, None]


def softmax_by_node(scores: Tensor, node: Tensor, nodes: int) -> Tensor:
    """Returns the softmax of scores [E, …] over the edges of the same node.

    Args:
        scores: [E, …].
        node: [E], which node each edge enters.
        nodes: N.
    """
    place = node.view(-1, *[1] * (scores.ndim - 1)).expand_as(scores)
    lowest = scores.new_full((nodes, *scores.shape[1:]), -torch.inf)
    highest = lowest.scatter_reduce(0, place, scores.detach(), "amax")
    powers = (scores - highest[node]).exp()
    return powers / torch.zeros_like(highest).index_add(0, node, powers)[node]


def check_widths(name: str, widths: Sequence[int]) -> None:
    """Checks that there is a hidden layer.

    Raises:
        TutelageError: there is none.
    """
    if not widths:
        raise TutelageError(f"{name}: widths must name at least one hidden layer; found none")


def glorot(layer: nn.Linear) -> nn.Linear:
    """Draws the weights by Glorot's uniform draw, zeroes the bias, and returns the layer."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Layers(nn.Module):
    """Linear layers, the first on sparse features, and a tap after each hidden one.

    Args:
        name: of the network, for errors.
        input_shape: ``[F]``.
        widths: units per hidden layer.
        outputs: number of logits.
        parts: times so many units each layer has.
        bias: whether layers have one.

    Raises:
        TutelageError: a size is not positive, or there is no hidden layer.
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int],
        widths: Sequence[int],
        outputs: int,
        parts: int = 1,
        bias: bool = True,
    ):
        super().__init__()
        check_widths(name, widths)
        check_positive(name, input_shape=input_shape, widths=widths, num_classes=outputs)
        sizes = [*widths, outputs]
        self.first = SparseLinear(prod(input_shape), parts * sizes[0], bias)
        self.later = nn.ModuleList(glorot(nn.Linear(a, parts * b, bias)) for a, b in pairwise(sizes))
        self.hidden = nn.ModuleList(NodeRows() for _ in widths)
