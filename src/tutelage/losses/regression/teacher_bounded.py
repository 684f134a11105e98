"""Teacher-bounded regression (Chen et al. 2017)."""

from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.logits import constant
from tutelage.losses.masks import only
from tutelage.losses.precision import check_same_shape, in_float32


class TeacherBounded(nn.Module):
    """Penalizes the student's squared error only where it is not below the teacher's by a margin.

    ``mean_b L_b``, ``L_b = ‖y_s − y‖²`` if ``‖y_s − y‖² + m > ‖y_t − y‖²``, else 0: summed over the outputs of an
    example, averaged over examples. The teacher is only a bound, because its outputs may be far from the label; a
    student that is better by the margin m gets no gradient. The loss is discontinuous at the bound. The published
    objective adds the distance to the label (smooth L1), here the objective's hard term. Elements whose label is NaN
    are excluded from both errors.

    Args:
        margin: m, in squared units of the label.

    Shape:
        student, teacher, label [B, d] or [B]; a scalar.

    Raises:
        TutelageError: a margin below 0 or not finite, shapes that differ, or labels that are not floats.

    Published weight: ν = 0.5 beside smooth L1 at 1.

    Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NIPS 2017.
    """

    margin: Tensor

    def __init__(self, margin: float = 0.0):
        super().__init__()
        self.register_buffer("margin", constant(margin, "TeacherBounded.margin", low=0.0), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        check_same_shape(student, teacher, "TeacherBounded")
        if label.shape != student.shape or not label.is_floating_point():
            raise TutelageError(
                f"TeacherBounded: expected floats {list(student.shape)} as labels, NaN if missing; "
                f"found {label.dtype} {list(label.shape)}"
            )
        known = ~label.isnan()
        of_student, of_teacher = (_distance(one, label, known) for one in (student, teacher))
        return of_student.where(of_student + self.margin > of_teacher, 0).mean()


def _distance(guess: Tensor, label: Tensor, known: Tensor) -> Tensor:
    """Returns the squared error of each example, [B]."""
    return (only(guess, known) - only(label, known)).square().reshape(len(guess), -1).sum(1)
