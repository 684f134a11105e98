"""A graph: sparse features of its nodes, and edges."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tutelage.types import Signals


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected graph of N nodes with F features each.

    Args:
        edges: [2, E] int64, from node ``edges[0]`` to node ``edges[1]``; every edge in both directions, without loops.
        columns: [Z] int64, the features that are not 0, node by node.
        offsets: [N] int64, where in ``columns`` those of each node begin.
        values: [Z] float32, of these features.
        width: F.
    """

    edges: Tensor
    columns: Tensor
    offsets: Tensor
    values: Tensor
    width: int

    def __len__(self) -> int:
        return len(self.offsets)

    @cached_property
    def counts(self) -> Tensor:
        """Returns how many features of each node are not 0, [N]."""
        return torch.cat([self.offsets, self.offsets.new_tensor([len(self.columns)])]).diff()

    @cached_property
    def features(self) -> Tensor:
        """Returns all features, [N, F] float32."""
        rows = torch.arange(len(self), device=self.offsets.device).repeat_interleave(self.counts)
        dense = self.values.new_zeros(len(self), self.width)
        return dense.index_put((rows, self.columns), self.values)

    def fields(self) -> Signals:
        """Returns what a batch holds of the graph; the dot in a name says that it is of the whole batch."""
        parts = {"edges": self.edges, "columns": self.columns, "offsets": self.offsets, "values": self.values}
        return {f"graph.{name}": part for name, part in parts.items()}

    def content(self) -> bytes:
        """Returns a digest of features and edges."""
        made = hashlib.sha256(repr((self.width, len(self))).encode())
        for part in self.fields().values():
            made.update(part.numpy().tobytes())
        return made.digest()

    def moved(self, to: Callable[[Tensor], Tensor]) -> "Graph":
        """Returns the same graph with ``to`` applied to each of its tensors."""
        made = Graph(to(self.edges), to(self.columns), to(self.offsets), to(self.values), self.width)
        made.__dict__["features"] = to(self.features)
        return made

    def subgraph(self, nodes: Tensor) -> "Graph":
        """Returns the graph of some nodes, numbered in their order here, and the edges between them.

        Args:
            nodes: [n] int64, ascending.
        """
        kept = torch.zeros(len(self), dtype=torch.bool)
        kept[nodes] = True
        number = kept.cumsum(0) - 1
        entries = kept.repeat_interleave(self.counts)
        counts = self.counts[nodes]
        return Graph(
            number[self.edges[:, kept[self.edges].all(0)]],
            self.columns[entries],
            counts.cumsum(0) - counts,
            self.values[entries],
            self.width,
        )

    def largest_component(self) -> Tensor:
        """Returns the nodes of the largest connected part, ascending; of equal ones that of the lowest node."""
        ones = torch.ones(self.edges.shape[1], dtype=torch.int8)
        adjacency = csr_array((ones, tuple(self.edges)), shape=(len(self), len(self)))
        part = torch.from_numpy(connected_components(adjacency, directed=False)[1])
        return (part == part.bincount().argmax()).nonzero().flatten()


def undirected(edges: Tensor, nodes: int) -> Tensor:
    """Returns edges in both directions, each once, without loops, in ascending order.

    Args:
        edges: [2, E] int64.
        nodes: number of nodes.
    """
    both = torch.cat([edges, edges.flip(0)], 1)
    both = both[:, both[0] != both[1]]
    codes = (both[1] * nodes + both[0]).unique()
    return torch.stack([codes % nodes, codes // nodes])
