"""Cross-entropy over some classes and a dustbin class for all others (Hinton, Vinyals & Dean 2015)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.logits import LOWEST, column, constant, floored, rows
from tutelage.losses.precision import in_float32


class Dustbin(nn.Module):
    """Trains a specialist: cross-entropy over its own classes and one dustbin class for all others.

    ``mean_b −log softmax(u)_j``: u holds the m logits of ``classes``, then the dustbin's,
    ``log Σ_{c not in classes} exp(z_c) − log((1 − r) / r)``; j is the label's index in ``classes``, or the dustbin's.
    At r = ½ it is the distribution over the m classes and the rest that the network's C logits imply.

    r corrects for training data that is sampled so that half of it belongs to ``classes``, whose true share is r: in
    such data the odds of each class against the dustbin are (1 − r) / r times the true ones (Bayes), so z learns the
    true ones. The paper adds this logarithm to the dustbin's logit after training; inside the loss, a specialist that
    is initialised from a generalist starts unbiased and need not learn the shift.

    Args:
        classes: labels of the m classes, 1 ≤ m < C.
        share: r, the true share of ``classes``, if half of the training examples belong to them.
        label_smoothing: label smoothing over the m + 1 classes.

    Shape:
        student [B, C]; label [B]; a scalar.

    Raises:
        TutelageError: ``classes`` is empty, has duplicates, labels outside [0, C) or all C; a share or a smoothing is
            out of range; a shape is wrong.

    Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531, section 5.
    """

    over_classes = True
    share: Tensor

    def __init__(self, classes: Sequence[int], share: float = 0.5, label_smoothing: float = 0.0):
        super().__init__()
        self.classes = list(classes)
        if not self.classes or len({*self.classes}) < len(self.classes) or min(self.classes) < 0:
            raise TutelageError(f"Dustbin.classes: expected labels, each once, found {self.classes}")
        self.register_buffer("share", constant(share, "Dustbin.share", 1e-6, 1 - 1e-6), persistent=False)
        self.label_smoothing = float(constant(label_smoothing, "Dustbin.label_smoothing", 0.0, 1.0))

    @in_float32
    def forward(self, student: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        label, student = column(label, student, "Dustbin")[:, 0], rows(student, "Dustbin")
        own = torch.tensor(self.classes, device=student.device)
        if not max(self.classes) < student.shape[1] or len(own) == student.shape[1]:
            raise TutelageError(
                f"Dustbin.classes: expected some but not all of 0 to {student.shape[1] - 1}, found {self.classes}"
            )
        student = floored(student, LOWEST)
        dustbin = student.index_fill(1, own, -math.inf).logsumexp(1, keepdim=True) - torch.logit(1 - self.share)
        place = torch.full((student.shape[1],), len(own), device=student.device)
        place[own] = torch.arange(len(own), device=student.device)
        logits = torch.cat([student[:, own], dustbin], 1)
        return F.cross_entropy(logits, place[label], label_smoothing=self.label_smoothing)
