"""Cosine similarity of hidden states (DistilBERT; Sanh et al. 2019)."""

from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.precision import check_same_shape, in_float32
from tutelage.losses.relation.sp import unit


class CosineStates(nn.Module):
    """Aligns the student's hidden states with the teacher's by their cosine similarity.

    ``mean (1 − cos(h_s, h_t))`` over tokens. Widths must be equal; nothing is learned. Invariant to the scale of any
    state. ``where`` of the term excludes padding; as in the reference, special tokens count. A zero state contributes 1
    and gets no gradient.

    Shape:
        student, teacher [N, d] or [B, L, d]; a scalar.

    Raises:
        TutelageError: the shapes differ, or there is no token.

    Published weight: 1, beside 5 of soft targets at T = 2 and 2 of masked language modelling (the authors' code).

    Sanh, Debut, Chaumond & Wolf, "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter", 2019,
    arXiv:1910.01108.
    """

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        check_same_shape(student, teacher, "CosineStates")
        if student.dim() < 2 or not student.numel():
            raise TutelageError(f"CosineStates takes states [N, d], none empty; found {list(student.shape)}")
        # ½ ‖u − v‖² of unit vectors: 1 − u·v, but accurate for near-equals.
        u, v = unit(student), unit(teacher)
        zero = 1 - (u.square().sum(-1) + v.square().sum(-1)) / 2
        return ((u - v).square().sum(-1) / 2 + zero).mean()
