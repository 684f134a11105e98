"""Patient knowledge distillation (Sun et al. 2019)."""

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import Stages
from tutelage.losses.precision import check_same_shape, in_float32
from tutelage.losses.relation.sp import unit


class PKD(nn.Module):
    """Matches the student's first-token states to those of the teacher's layers.

    ``mean (ĉ_s − ĉ_t)²`` over examples, layers and the d elements of a state, ``ĉ = c / ‖c‖₂`` for the state c of the
    first token ([CLS]). The term's two lists say which layers are compared: from 12 to 6 layers, the published
    ``skip`` is the student's outputs 1–5 with the teacher's 2, 4, 6, 8, 10, and ``last`` with 7–11 (the last layer is
    left out). The mean over d is the authors'; TextBrewer sums, which is d times that.

    Args:
        normalize: whether states are scaled to unit length; the authors tried both.

    Shape:
        student, teacher: [B, L, d] (the first token is read) or [B, d], or a list of such layers. A scalar.

    Raises:
        TutelageError: numbers of layers or shapes that differ.

    Published weight: β searched in 10, 100, 500, 1000, beside α in 0.2, 0.5, 0.7 of soft targets at T 5, 10 or 20,
    which the authors divide by the number of classes.

    Sun, Cheng, Gan & Liu, "Patient Knowledge Distillation for BERT Model Compression", 2019, arXiv:1908.09355.
    """

    def __init__(self, normalize: bool = True):
        super().__init__()
        self.normalize = normalize

    @in_float32
    def forward(self, student: Stages, teacher: Stages) -> Tensor:
        """Returns the loss, a scalar."""
        students, teachers = (_first_tokens(layers) for layers in (student, teacher))
        if len(students) != len(teachers) or not students:
            raise TutelageError(f"PKD needs as many layers of both; found {len(students)} and {len(teachers)}")
        return torch.stack([self._distance(s, t) for s, t in zip(students, teachers, strict=True)]).mean()

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        check_same_shape(student, teacher, "PKD")
        if self.normalize:
            student, teacher = unit(student), unit(teacher)
        return (student - teacher).square().mean()


def _first_tokens(layers: Stages) -> list[Tensor]:
    """Returns each layer's first-token states [B, d]."""
    each = [layers] if isinstance(layers, Tensor) else list(layers)
    if any(one.dim() not in (2, 3) for one in each):
        shapes = [list(one.shape) for one in each]
        raise TutelageError(f"PKD takes states [B, L, d] or [B, d]; found {shapes}")
    return [one[:, 0] if one.dim() == 3 else one for one in each]
