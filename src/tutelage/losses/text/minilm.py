"""Self-attention relations of the last layer (Wang et al. 2020, 2021)."""

import torch
from torch import Tensor, nn

from tutelage.losses.logits import LOWEST, constant, kl
from tutelage.losses.masks import only
from tutelage.losses.precision import in_float32
from tutelage.losses.text.heads import check_states, checked_heads, products

States = tuple[Tensor, Tensor, Tensor]  # queries, keys and values


class _Relations(nn.Module):
    """A loss on the queries, keys and values of one layer of both networks."""

    def __init__(self, heads: int):
        super().__init__()
        self.heads = checked_heads(heads, f"{type(self).__name__}.heads")

    @in_float32
    def forward(
        self,
        student_query: Tensor,
        student_key: Tensor,
        student_value: Tensor,
        teacher_query: Tensor,
        teacher_key: Tensor,
        teacher_value: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss, a scalar."""
        student = {"student_query": student_query, "student_key": student_key, "student_value": student_value}
        teacher = {"teacher_query": teacher_query, "teacher_key": teacher_key, "teacher_value": teacher_value}
        check_states(student | teacher, mask, self.heads, type(self).__name__)
        own, theirs = (student_query, student_key, student_value), (teacher_query, teacher_key, teacher_value)
        return self._of_states(own, theirs, mask)

    def _of_states(self, student: States, teacher: States, mask: Tensor | None) -> Tensor:
        raise NotImplementedError


class MiniLM(_Relations):
    """Matches the student's attention and value relations, in one layer, to the teacher's.

    ``mean_b 1/(H·n_b) Σ_heads Σ_i [KL(A_t‖A_s) + KL(V_t‖V_s)]``, ``A = softmax(q kᵀ/√d_head)``,
    ``V = softmax(v vᵀ/√d_head)``, over the n_b valid tokens of an example, both as queries and as keys. The widths
    may differ, the number of heads may not; nothing is learned. There is no T, hence no T². An example without a valid
    token contributes 0.

    Args:
        heads: the number of attention heads of both networks.

    Shape:
        student_query, student_key, student_value [B, L, d_s]; teacher_query, teacher_key, teacher_value [B, L, d_t];
        mask [B, L] bools, true for valid tokens (absent: all are). A scalar.

    Raises:
        TutelageError: shapes that do not fit, or widths that are no multiple of the heads.

    Published weight: 1, on the last layer of both (no training code was published).

    Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression", 2020, arXiv:2002.10957.
    """

    def _of_states(self, student: States, teacher: States, mask: Tensor | None) -> Tensor:
        query_key = relation_kl((student[0], student[1]), (teacher[0], teacher[1]), self.heads, mask)
        return query_key + relation_kl((student[2],) * 2, (teacher[2],) * 2, self.heads, mask)


class MiniLMv2(_Relations):
    """Matches the relations of the student's queries, keys and values, in one layer, to the teacher's.

    ``Σ_x w_x · mean_b 1/(A·n_b) Σ_heads Σ_i KL(R_t‖R_s)``, ``R = softmax(x xᵀ/√d_r)`` for x the queries, keys and
    values, each split anew into A relation heads of width d_r = d/A, over the n_b valid tokens of an example, both as
    rows and as columns. Widths and attention heads may differ; nothing is learned. There is no T, hence no T². An
    example without a valid token contributes 0.

    Args:
        heads: A, the number of relation heads; both widths must be multiples of it.
        query: w of the queries.
        key: w of the keys.
        value: w of the values.

    Shape:
        student_query, student_key, student_value [B, L, d_s]; teacher_query, teacher_key, teacher_value [B, L, d_t];
        mask [B, L] bools, true for valid tokens (absent: all are). A scalar.

    Raises:
        TutelageError: shapes that do not fit, widths that are no multiple of the heads, a weight below 0.

    Published weight: 1 each, A = 48 (64 for large teachers), the student's last layer and the teacher's 12th of 12
    (21st of 24).

    Wang et al., "MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing Pretrained Transformers",
    2021, arXiv:2012.15828.
    """

    query: Tensor
    key: Tensor
    value: Tensor

    def __init__(self, heads: int = 48, query: float = 1.0, key: float = 1.0, value: float = 1.0):
        super().__init__(heads)
        for name, weight in (("query", query), ("key", key), ("value", value)):
            self.register_buffer(name, constant(weight, f"MiniLMv2.{name}", low=0.0), persistent=False)

    def _of_states(self, student: States, teacher: States, mask: Tensor | None) -> Tensor:
        parts = [
            weight * relation_kl((s, s), (t, t), self.heads, mask)
            for weight, s, t in zip((self.query, self.key, self.value), student, teacher, strict=True)
        ]
        return torch.stack(parts).sum()


def relation_kl(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], heads: int, mask: Tensor | None
) -> Tensor:
    """Returns the mean over examples, heads and valid tokens of the KL from the teacher's relations to the student's.

    Args:
        student: x and y, [B, L, d_s] each; the relation is softmax(x yᵀ/√d_head).
        teacher: the same, [B, L, d_t].
        heads: the number of heads.
        mask: [B, L] bools, or None.
    """
    log_p, log_q = (_log_relations(*pair, heads, mask) for pair in (student, teacher))
    each = kl(log_q, log_p).mean(1)  # [B, L]
    if mask is None:
        return each.mean()
    return (only(each, mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


def _log_relations(first: Tensor, second: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """Returns the log-relations [B, heads, L, L], normalised by row; masked columns have probability 0."""
    scores = products(first, second, heads, mask)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], LOWEST)
    return scores.log_softmax(-1)
