"""Norm and direction of features (Wang et al. 2023), the loss that makes KD++ of KD."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import VECTORS, Lazy, check_pair, width
from tutelage.losses.logits import column
from tutelage.losses.precision import check_same_shape, in_float32
from tutelage.types import NO_LABEL


class NormDirection(Lazy):
    """Makes the student's embedding long, and in the direction of its class's mean of the teacher's.

    ``mean_B [1 − ⟨e_s, m_y / ‖m_y‖⟩ / max(‖e_s‖, ‖e_t‖)]``: m_c is the mean of the teacher's embeddings of the training
    examples of class c, taken once before training (:meth:`prepare`). A shorter embedding than the teacher's pays for
    its length, a longer one for its direction alone. If the widths differ, e_s goes through batch normalisation,
    dropout of 0.5 and a linear layer.

    Args:
        num_classes: C.

    Shape:
        student [B, D_s], teacher [B, D_t], label [B]. A scalar.

    Raises:
        TutelageError: ``forward`` is called with gradients before :meth:`prepare`, or a class had no example there.

    Published weight: by pair 0.5 to 2 beside CE and soft targets at T = 4 with a weight of 1 to 4 (KD++; 2 and 1 for
    ResNet-56 → 20), and 0.5 to 4 beside DKD (DKD++).

    Wang et al., "Improving Knowledge Distillation via Regularizing Feature Norm and Direction", 2023, arXiv:2305.17007.
    """

    least_rows = 2  # of the batch normalisation
    align: nn.Module

    def __init__(self, num_classes: int):
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise TutelageError(f"NormDirection.num_classes: expected 1 or more, found {num_classes!r}")
        self.num_classes = num_classes
        self.outline()

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Makes the alignment and the place of the means."""
        ours, theirs = width(student), width(teacher)
        layers = (nn.BatchNorm1d(ours), nn.Dropout(0.5), nn.Linear(ours, theirs))
        self.align = nn.Identity() if ours == theirs else nn.Sequential(*layers)
        self.means = _Means(self.num_classes, theirs)

    def prepare(self, examples: Callable[[int], Iterable[Mapping[str, Tensor]]]) -> None:
        """Takes the means of the teacher's embeddings, unless they were loaded from a checkpoint.

        Args:
            examples: epoch → batches with ``teacher`` and ``label``.

        Raises:
            TutelageError: ``forward`` has not been called yet, or a class has no example.
        """
        if not self.built:
            raise TutelageError("NormDirection's means have no shape before the first call of forward")
        if bool(self.means.count.any()):
            return
        for batch in examples(0):
            self.means.add(batch["teacher"], batch["label"])
        if not bool(self.means.count.all()):
            absent = int((self.means.count == 0).nonzero()[0])
            raise TutelageError(f"NormDirection: no training example of class {absent}, so that its mean is unknown")

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        check_pair(student, teacher, "NormDirection", (VECTORS,))
        self.build_once(student, teacher)
        label = column(label, teacher, "NormDirection")[:, 0]
        aligned = self.align(student)
        check_same_shape(aligned, teacher, "NormDirection after its alignment")
        mean = self.means.total[label]
        along = (aligned * mean).sum(1) / mean.norm(dim=1).clamp_min(1e-12)
        length = torch.maximum(aligned.norm(dim=1), teacher.norm(dim=1)).clamp_min(1e-12)
        return (1 - along / length).mean()


class _Means(nn.Module):
    """Sums of vectors by class, and their numbers, as part of a checkpoint."""

    total: Tensor
    count: Tensor

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.register_buffer("total", torch.zeros(classes, width))
        self.register_buffer("count", torch.zeros(classes))

    @torch.no_grad()
    def add(self, vectors: Tensor, label: Tensor) -> None:
        """Adds vectors [B, D] to the sums of their classes [B]; those without a label are left out."""
        known = label != NO_LABEL
        self.total.index_add_(0, label[known], vectors[known].to(self.total.dtype))
        self.count.index_add_(0, label[known], torch.ones_like(label[known], dtype=self.count.dtype))
