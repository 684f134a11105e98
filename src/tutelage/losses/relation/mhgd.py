"""Multi-head graph distillation (Lee & Song 2019)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, TOKENS, Lazy, Norm1d, Pairs, stage_pairs, width
from tutelage.losses.logits import kl
from tutelage.losses.precision import in_float32
from tutelage.seeding import generator

_CANDIDATES = 4  # singular vectors of the student, of which the nearest to the teacher's is taken


class MHGD(Lazy):
    """Matches graphs of the batch's examples, which attention between two stages has learned from the teacher.

    ``Σ_l Σ_heads Σ_rows KL(softmax tanh G^s ‖ softmax tanh G^t)``, the student first, over consecutive stages l − 1, l.
    ``G = K Qᵀ`` [heads, B, B], unscaled, with ``K = BN(W_k v_l)`` and ``Q = BN(W_q v_{l−1})`` of (C_{l−1} + C_l) / 2
    numbers a head. v_l [B, C_l] is the first right-singular vector of each example's map as a matrix [positions, C_l];
    of the student that of its first four which is nearest to the teacher's, with its sign. Gradients of singular
    vectors leave out pairs of equal singular values.

    The attention learns first, from the teacher alone (:meth:`prepare`): it rebuilds v_l from the v_{l−1} of all
    examples, loss ``mean 1 − cos(v_l, v̂_l)``, ``v̂_l = W_o [softmax(tanh G) · ReLU BN(W_v v_{l−1})]``, heads side by
    side, of which each is dropped with a chance of ½. Then it is fixed, its batch normalisation too. The state_dict
    records whether it has learned, so a resumed run does not repeat the phase.

    Differs from the authors' code: there the phase is the student's first 40 epochs on labels alone, and afterwards the
    gradient is clipped to that of the labels' loss, parameter by parameter; here the weight takes its place. The sign
    of the teacher's vectors is fixed by their largest number. The phase's optimizer and the share of dropped heads are
    ours.

    Under DDP each rank compares the examples of its own slice of the batch only.

    Args:
        stages: the greatest number of stages.
        heads: of the attention.
        epochs: of the attention's phase, by Adam.
        lr: learning rate of that phase.

    Shape:
        student and teacher: lists of two or more maps [B, C_l, H, W] or tokens [B, N, C_l] of equal C_l. A scalar.

    Raises:
        TutelageError: an argument is out of range, there is one stage, widths differ, or ``forward`` is called with
            gradients before :meth:`prepare`.

    Published: 8 heads, WResNet pairs on CIFAR-100; no weight, see above.

    Lee and Song, "Graph-based Knowledge Distillation by Multi-head Attention Network", 2019, arXiv:1907.02226.
    """

    least_rows = 2  # the softmax over one example is 1
    prepared = False
    keys: nn.ModuleList
    queries: nn.ModuleList
    values: nn.ModuleList
    outputs: nn.ModuleList

    def __init__(self, stages: int = 4, heads: int = 8, epochs: int = 40, lr: float = 1e-3):
        super().__init__()
        if heads < 1 or epochs < 1 or not 0 < lr < float("inf"):
            raise TutelageError(
                f"MHGD needs heads ≥ 1, epochs ≥ 1 and lr > 0 and finite; found {heads}, {epochs} and {lr}"
            )
        self.heads, self.epochs, self.lr = heads, epochs, lr
        self.outline(stages)

    def build(self, pairs: Pairs) -> None:
        """Makes the attention of every two consecutive stages, which only :meth:`prepare` trains."""
        widths = [width(teacher) for _, teacher in pairs]
        steps = list(pairwise(widths))
        sizes = [self.heads * max(1, (a + b) // 2) for a, b in steps]
        self.keys = nn.ModuleList(_projection(b, size) for (_, b), size in zip(steps, sizes, strict=True))
        self.queries = nn.ModuleList(_projection(a, size) for (a, _), size in zip(steps, sizes, strict=True))
        self.values = nn.ModuleList(_projection(a, a) for a, _ in steps)
        self.outputs = nn.ModuleList(nn.Linear(self.heads * a, b) for a, b in steps)
        for part in self._parts():
            part.requires_grad_(False).eval()

    def _parts(self) -> list[nn.ModuleList]:
        return [self.keys, self.queries, self.values, self.outputs]

    def train(self, mode: bool = True) -> "MHGD":
        """Sets the mode; the attention stays in eval mode, in which :meth:`prepare` left it."""
        super().train(mode)
        if hasattr(self, "keys"):  # it is built
            for part in self._parts():
                part.eval()
        return self

    def graphs(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Returns tanh G of every two consecutive stages, [heads, B, B], of vectors [B, C_l]."""
        found = []
        for number, (front, back) in enumerate(pairwise(vectors)):
            key, query = self.keys[number](back), self.queries[number](front)
            key, query = (x.unflatten(1, (self.heads, -1)).transpose(0, 1) for x in (key, query))
            found.append((key @ query.mT).tanh())
        return found

    @in_float32
    def reconstruction(self, vectors: Sequence[Tensor], kept: Tensor | None = None) -> Tensor:
        """Returns the attention's training loss, averaged over stages, a scalar.

        Args:
            vectors: of the teacher, [B, C_l] each.
            kept: [heads] of 0 and 1, which heads are not dropped; None: all.
        """
        losses = []
        for number, graph in enumerate(self.graphs(vectors)):
            front, back = vectors[number], vectors[number + 1]
            seen = graph.softmax(-1) @ self.values[number](front).relu()  # [heads, B, C]
            seen = seen if kept is None else seen * kept[:, None, None]
            found = self.outputs[number](seen.transpose(0, 1).flatten(1))
            losses.append((1 - F.cosine_similarity(found, back)).mean())
        return torch.stack(losses).mean()

    def prepare(self, examples: Callable[[int], Iterable[Mapping[str, Any]]]) -> None:
        """Trains the attention unless a trained one was loaded from a checkpoint.

        Args:
            examples: epoch → batches with ``teacher``.

        Raises:
            TutelageError: ``forward`` has not been called yet, or the loss became infinite or NaN.
        """
        if self.prepared:
            return
        if not self.built:
            raise TutelageError("MHGD's attention has no shape before the first call of forward")
        attention = nn.ModuleList(self._parts()).requires_grad_().train()
        optimizer = torch.optim.Adam(attention.parameters(), self.lr)
        with torch.enable_grad():
            for epoch in range(self.epochs):
                for number, batch in enumerate(examples(epoch)):
                    vectors = [principal(stage) for stage in batch["teacher"]]
                    kept = (torch.rand(self.heads, generator=generator("MHGD", epoch, number)) < 0.5).to(vectors[0])
                    optimizer.zero_grad()
                    loss = self.reconstruction(vectors, kept)
                    loss.backward()
                    optimizer.step()
        if not loss.isfinite():
            raise TutelageError(f"MHGD's attention ended at a loss of {loss.item()}; its lr is {self.lr}")
        attention.requires_grad_(False).eval()
        self.prepared = True

    def get_extra_state(self) -> dict[str, bool]:
        """Returns whether the attention has been trained."""
        return {"prepared": self.prepared}

    def set_extra_state(self, state: Any) -> None:
        """Restores from a checkpoint whether the attention has been trained."""
        self.prepared = state["prepared"]

    @in_float32
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Returns the divergence of the graphs, a scalar."""
        pairs = stage_pairs(student, teacher, "MHGD", (MAPS, TOKENS))
        widths = [[width(x) for x in stages] for stages in zip(*pairs, strict=True)]
        if len(pairs) < 2 or widths[0] != widths[1]:
            raise TutelageError(
                f"MHGD takes two or more stages of equal widths; found student {widths[0]}, teacher {widths[1]}"
            )
        self.build_once(pairs)
        if self.training and torch.is_grad_enabled() and not self.prepared:
            raise TutelageError("MHGD's attention is not trained: call prepare with the teacher's maps first")
        theirs = [principal(t) for _, t in pairs]
        own = [principal(s, near) for (s, _), near in zip(pairs, theirs, strict=True)]
        graphs = zip(self.graphs(own), self.graphs(theirs), strict=True)
        return torch.stack([kl(p.log_softmax(-1), q.log_softmax(-1)).sum() for p, q in graphs]).sum()


def _projection(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), Norm1d(outputs))


def principal(feature: Tensor, near: Tensor | None = None) -> Tensor:
    """Returns a right-singular vector of each example's feature as a matrix [positions, C], of length 1: [B, C].

    Its gradient leaves out pairs of singular values that are equal, or both 0.

    Args:
        feature: a map [B, C, H, W] or tokens [B, N, C].
        near: None: the first vector, its largest number positive; else vectors [B, C]: of the first four the nearest.
    """
    matrix = feature.flatten(2).mT if feature.ndim == MAPS else feature
    gram = (matrix.mT @ matrix).double()
    values, vectors = torch.linalg.eigh(gram.detach())  # ascending
    if near is None:
        index = values.new_full((len(values),), values.shape[1] - 1).long()
        first = vectors[..., -1]
        sign = first.gather(1, first.abs().argmax(1, keepdim=True)).sign()
    else:
        first = max(0, values.shape[1] - _CANDIDATES)
        cosine = (vectors[..., first:].mT @ near.detach().double()[..., None])[..., 0]
        index = first + cosine.abs().argmax(1)
        sign = cosine.gather(1, index[:, None] - first).sign()
    sign = sign + (sign == 0)
    chosen = vectors.gather(2, index[:, None, None].expand(-1, values.shape[1], 1))  # [B, C, 1]
    # First-order perturbation: the value is the vector itself, the gradient that of an eigenvector.
    gaps = values.gather(1, index[:, None]) - values
    tiny = gaps.abs() <= 1e-10 * values.amax(1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    change = vectors.mT @ ((gram - gram.detach()) @ chosen)
    moved = chosen + vectors @ (change * (~tiny / gaps.masked_fill(tiny, 1.0))[..., None])
    return (moved[..., 0] * sign).to(feature.dtype)
