"""Local structure preserving: the neighbourhoods of a graph's nodes (Yang et al. 2020)."""

import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.logits import constant
from tutelage.losses.precision import in_float32
from tutelage.losses.relation.sp import flat_rows

_KERNELS = ("l1", "rbf")


class LSP(Loss):
    """Matches how similar each node is to its neighbours, relative to one another, to the teacher's.

    ``mean_i KL(L^t_i ‖ L^s_i)`` over the nodes i that have a neighbour, ``L_i = softmax_j k(h_i, h_j)`` over the edges
    j → i. ``l1``: ``k = exp(−‖h_i − h_j‖₁ / scale)``, as the authors' code has it under the name of a Gaussian;
    ``rbf``: ``k = exp(−‖h_i − h_j‖² / (2 scale²))``, the paper's. The softmax stands on top of the kernel in both.
    Widths may differ. Sums are in float64, as kernels differ in their last digits.

    Only edges between two nodes of the batch count, so a batch should have all nodes (``data.batch_size`` of at least
    their number); then the loss is the published one. Under DDP each rank sees the edges within its slice.

    Args:
        kernel: ``l1`` or ``rbf``.
        scale: of the kernel, above 0.

    Shape:
        student [B, …], teacher [B, …], node [B] integers, edges [2, E] integers (from, to). Returns a scalar, 0 without
        an edge within the batch.

    Published: l1, 100, at weight 1 beside the loss on labels (GAT on PPI; hidden layer 2 of both networks).

    Yang et al., "Distilling Knowledge from Graph Convolutional Networks", 2020, arXiv:2003.10477.

    Raises:
        TutelageError: an argument is out of range.
    """

    least_rows = 2
    scale: Tensor

    def __init__(self, kernel: str = "l1", scale: float = 100.0):
        super().__init__()
        if kernel not in _KERNELS:
            raise TutelageError(f"LSP.kernel must be {' or '.join(_KERNELS)}; found {kernel!r}")
        self.kernel = kernel
        if not scale > 0:
            raise TutelageError(f"LSP.scale must be above 0; found {scale}")
        self.register_buffer("scale", constant(scale, "LSP.scale"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, node: Tensor, edges: Tensor) -> Tensor:
        """Returns the divergence of neighbourhoods, averaged over nodes: a scalar."""
        own, theirs = flat_rows(student, teacher, "LSP")
        if node.shape != (len(own),) or edges.ndim != 2 or len(edges) != 2:
            raise TutelageError(
                f"LSP: expected node [{len(own)}] and edges [2, E]; found {list(node.shape)} and {list(edges.shape)}"
            )
        start, end = within(node, edges)
        log_p, log_q = (self._log_softmax(rows, start, end) for rows in (own, theirs))
        entered = torch.zeros(len(own), device=own.device).index_fill(0, end, 1.0).sum()
        divergence = (log_q.exp() * (log_q - log_p)).sum() / entered.clamp(min=1)
        return divergence.to(own.dtype)

    def _log_softmax(self, rows: Tensor, start: Tensor, end: Tensor) -> Tensor:
        apart = rows.index_select(0, start) - rows.index_select(0, end)
        if self.kernel == "l1":
            near = (-apart.abs().sum(1).double() / self.scale).exp()
        else:
            near = (-apart.square().sum(1).double() / (2 * self.scale**2)).exp()
        sums = near.new_zeros(len(rows)).index_add(0, end, near.exp())  # kernels are at most 1: no overflow
        return near - sums.log()[end]


def within(node: Tensor, edges: Tensor) -> Tensor:
    """Returns the edges between nodes of a batch, [2, e], as places in it; of a node that comes twice, the first.

    Args:
        node: [B], the number of each in the graph.
        edges: [2, E], of the whole graph.
    """
    highest = int(torch.cat([node, edges.flatten()]).max()) + 1
    places = torch.arange(len(node), device=node.device)
    place = torch.full((highest,), len(node), device=node.device).scatter_reduce(0, node, places, "amin")
    found = place[edges]
    return found[:, (found < len(node)).all(0)]
