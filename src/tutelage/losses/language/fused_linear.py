"""A loss of logits that are computed a few rows at a time."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tutelage.errors import TutelageError
from tutelage.losses.precision import in_float32


class FusedLinear(nn.Module):
    """Applies a loss to the logits of hidden states without ever storing all logits.

    ``loss(h_s W_sᵀ + b_s, h_t W_tᵀ + b_t)``: value and gradients are those of ``loss`` on the logits [N, V], which are
    computed for ``chunk`` rows at a time, and again in the backward pass. That costs one more multiplication by the
    classifiers, and needs memory for [chunk, V] instead of several [N, V]. Logits are computed in the dtype of the
    states, ``loss`` in float32 or better.

    Args:
        loss: a loss of student's and teacher's logits [B, C] that is a mean over rows, such as ``SoftTarget``,
            ``ReverseKL``, ``JSD`` or ``SkewKL``; not one that compares rows, such as ``DIST``.
        chunk: how many rows at a time.

    Shape:
        student [N, d_s], student_weight [V, d_s], student_bias [V] or absent; teacher [N, d_t], teacher_weight
        [V, d_t], teacher_bias [V] or absent. A scalar. For tokens [B, L, d], ``where`` of the term selects
        rows.

    Raises:
        TutelageError: a chunk below 1, or shapes that do not fit.

    Hsu et al., "Liger Kernel: Efficient Triton Kernels for LLM Training", 2024, arXiv:2410.10989.
    """

    def __init__(self, loss: nn.Module, chunk: int = 1024):
        super().__init__()
        if not isinstance(chunk, int) or chunk < 1:
            raise TutelageError(f"FusedLinear.chunk: expected an integer of 1 or more, found {chunk!r}")
        self.loss, self.chunk = loss, chunk

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        student_weight: Tensor,
        teacher_weight: Tensor,
        student_bias: Tensor | None = None,
        teacher_bias: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss, a scalar."""
        _check(student, student_weight, student_bias, "student")
        _check(teacher, teacher_weight, teacher_bias, "teacher")
        if len(student) != len(teacher) or len(student_weight) != len(teacher_weight) or not len(student):
            raise TutelageError(
                "FusedLinear: student and teacher must have the same rows, at least one, and classes; found states "
                f"{list(student.shape)} and {list(teacher.shape)}, "
                f"weights {list(student_weight.shape)} and {list(teacher_weight.shape)}"
            )
        of_student, of_teacher = (student_weight, student_bias), (teacher_weight, teacher_bias)
        parts = [
            checkpoint(self._part, s, t, *of_student, *of_teacher, use_reentrant=False, preserve_rng_state=False)
            for s, t in zip(student.split(self.chunk), teacher.split(self.chunk), strict=True)
        ]
        total: Tensor = sum(parts[1:], start=parts[0])
        return total / len(student)

    def _part(self, student: Tensor, teacher: Tensor, *weights: Tensor) -> Tensor:
        """Returns the loss of a chunk times its number of rows."""
        logits = F.linear(student, *weights[:2]), F.linear(teacher, *weights[2:])
        return self._in_float32(*logits) * len(student)

    @in_float32
    def _in_float32(self, student: Tensor, teacher: Tensor) -> Tensor:
        value: Tensor = self.loss(student, teacher)
        return value


def _check(states: Tensor, weight: Tensor, bias: Tensor | None, whose: str) -> None:
    fits = states.dim() == weight.dim() == 2 and states.shape[1] == weight.shape[1]
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        found = f"states {list(states.shape)}, weight {list(weight.shape)}"
        found += "" if bias is None else f", bias {list(bias.shape)}"
        raise TutelageError(f"FusedLinear takes states [N, d], a weight [V, d] and a bias [V]; found {whose}'s {found}")
