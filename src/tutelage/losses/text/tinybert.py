"""Transformer distillation (Jiao et al. 2020): attention scores and hidden states."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import Lazy, Stages
from tutelage.losses.masks import masked_mean, only
from tutelage.losses.precision import check_same_shape, in_float32
from tutelage.losses.text.heads import check_states, checked_heads, products

Pairs = list[tuple[Tensor, Tensor]]


class TinyBERTAttention(nn.Module):
    """Matches the student's attention scores, before the softmax, to the teacher's.

    ``Σ_layers mean (S_s − S_t)²``, ``S = q kᵀ / √d_head`` of each head, averaged over examples, heads and pairs of
    positions. Queries and keys are outputs of submodules, so no network has to return its attention. The widths may
    differ, the number of heads may not.

    Args:
        heads: the number of attention heads of both networks.
        padding: whether padding counts. If false, the mean is over pairs of valid tokens (of all ranks). If true, as in
            the authors' code, scores of padded keys are 0, padded queries count, and the mean is over all pairs.

    Shape:
        student_query, student_key [B, L, d_s] and teacher_query, teacher_key [B, L, d_t], or lists of layers; mask
        [B, L] bools, true for valid tokens (absent: all are). A scalar.

    Raises:
        TutelageError: numbers of layers or shapes that do not fit, widths that are no multiple of the heads.

    Published weight: 1, beside the states' loss at 1; layer m of M reads the teacher's layer m·N/M of N.

    Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", 2020, arXiv:1909.10351.
    """

    counts_over_ranks = True

    def __init__(self, heads: int, padding: bool = False):
        super().__init__()
        self.heads, self.padding = checked_heads(heads, "TinyBERTAttention.heads"), padding

    @in_float32
    def forward(
        self,
        student_query: Stages,
        student_key: Stages,
        teacher_query: Stages,
        teacher_key: Stages,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss summed over the layers, a scalar."""
        signals = _layers(
            "TinyBERTAttention",
            student_query=student_query,
            student_key=student_key,
            teacher_query=teacher_query,
            teacher_key=teacher_key,
        )
        for layer in zip(*signals.values(), strict=True):
            check_states(dict(zip(signals, layer, strict=True)), mask, self.heads, "TinyBERTAttention")
        layers = zip(*signals.values(), strict=True)
        return torch.stack([self._distance(layer[:2], layer[2:], mask) for layer in layers]).sum()

    def _distance(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """Returns the mean squared distance of the scores of two pairs of query and key."""
        counted = None if self.padding else mask
        scores = [products(query, key, self.heads, counted) for query, key in (student, teacher)]
        distance = (scores[0] - scores[1]).square()
        if mask is None:
            return distance.mean()
        if self.padding:
            return distance.where(mask[:, None, None], 0).mean()
        pairs = mask[:, :, None] & mask[:, None]
        return masked_mean(distance.movedim(1, -1), pairs)


class TinyBERTStates(Lazy):
    """Matches the student's hidden states, after a learned projection, to those of the teacher's layers.

    ``Σ_layers mean (W h_s + b − h_t)²`` over tokens and the teacher's width; the first layer is the output of the
    embedding. As in the authors' code, states are projected even if the widths are equal.

    Args:
        projection: ``shared``, one for all layers (the authors' code; all layers of one width), or ``layer``, one each
            (the paper has one for the embedding and one for all others).
        padding: whether padding counts, as in the authors' code; else the mean is over valid tokens (of all ranks).
        layers: the maximum number of layers with ``projection="layer"``.

    Shape:
        student [B, L, d_s], teacher [B, L, d_t], or lists of layers; mask [B, L] bools, true for a real token (absent:
        all are). A scalar.

    Raises:
        TutelageError: another value of the projection; numbers of layers or shapes that do not fit.

    Published weight: 1, beside the attention's loss at 1; layer m of M reads the teacher's layer m·N/M of N.

    Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", 2020, arXiv:1909.10351.
    """

    projections: nn.ModuleList

    counts_over_ranks = True

    def __init__(self, projection: str = "shared", padding: bool = False, layers: int = 13):
        super().__init__()
        if projection not in ("shared", "layer"):
            raise TutelageError(f"TinyBERTStates.projection: expected shared or layer, found {projection!r}")
        self.shared, self.padding = projection == "shared", padding
        self.outline(1 if self.shared else layers)

    def build(self, pairs: Pairs) -> None:
        """Creates a projection for each pair of states."""
        self.projections = nn.ModuleList(nn.Linear(s.shape[-1], t.shape[-1]) for s, t in pairs)

    @in_float32
    def forward(self, student: Stages, teacher: Stages, mask: Tensor | None = None) -> Tensor:
        """Returns the loss summed over the layers, a scalar."""
        signals = _layers("TinyBERTStates", student=student, teacher=teacher)
        pairs = list(zip(*signals.values(), strict=True))
        for s, t in pairs:
            check_states({"student": s, "teacher": t}, mask, 1, "TinyBERTStates")
        counted = None if self.padding else mask
        pairs = [(only(s, counted), only(t, counted)) for s, t in pairs]  # padding reaches no parameter
        self.build_once(pairs[:1] if self.shared else pairs)
        projections = list(self.projections) * (len(pairs) if self.shared else 1)
        each = zip(projections, pairs, strict=True)
        return torch.stack([_distance(w, s, t, counted) for w, (s, t) in each]).sum()


def _distance(projection: nn.Module, student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    if student.shape[-1] != projection.in_features:
        raise TutelageError(
            f"TinyBERTStates projects states of width {projection.in_features}; found {list(student.shape)}: "
            "use projection=layer if layers differ"
        )
    guess = projection(student)
    check_same_shape(guess, teacher, "TinyBERTStates after its projection")
    return masked_mean((guess - teacher).square(), mask)


def _layers(what: str, **signals: Stages) -> dict[str, Sequence[Tensor]]:
    """Returns each signal as a list of layers, checked to have equal lengths."""
    lists: dict[str, Sequence[Tensor]] = {
        name: [one] if isinstance(one, Tensor) else list(one) for name, one in signals.items()
    }
    numbers = {name: len(layers) for name, layers in lists.items()}
    if len(set(numbers.values())) != 1 or not all(numbers.values()):
        found = ", ".join(f"{name} {number}" for name, number in numbers.items())
        raise TutelageError(f"{what} needs as many layers of all; found {found}")
    return lists
