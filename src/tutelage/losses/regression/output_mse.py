"""Mean squared error between the outputs of regression."""

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.losses.precision import check_same_shape, in_float32


class OutputMSE(nn.Module):
    """Matches the student's outputs to the teacher's by their mean squared error.

    ``mean (y_s − y_t)²`` over all B·d elements, the reduction of ``torch.nn.MSELoss``, so that weights beside it are
    comparable. Shapes must be equal: [B, 1] and [B] would broadcast to all pairs.
    :class:`~tutelage.losses.logit.logit_mse.LogitMSE` sums over classes instead. There is no T.

    Shape:
        student, teacher [B, d] or [B]; a scalar.

    Raises:
        TutelageError: the shapes differ.
    """

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        check_same_shape(student, teacher, "OutputMSE")
        return F.mse_loss(student, teacher)
