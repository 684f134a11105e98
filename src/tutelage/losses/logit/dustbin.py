"""Cross-entropy over some classes and one dustbin for all others (Hinton et al. 2015)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.logits import LOWEST, column, constant, floored, rows
from tutelage.losses.precision import in_float32


class Dustbin(nn.Module):
    """Trains a specialist: cross-entropy over its own classes and one "other" class for all the rest.

    ``mean_b −log softmax(u)_j``: u holds the m logits of ``classes``, then the dustbin's,
    ``log Σ_{c not in classes} exp(z_c) − log((1 − r) / r)``; j is the label's place in ``classes``, or the dustbin's.
    At r = ½ and with a network that gives all C logits it is the very distribution that these imply.

    r corrects for data of which half are of ``classes`` where their true share is r: there the odds of every class
    against the dustbin are (1 − r) / r times the true ones (Bayes), so z learns the true ones. The paper adds the same
    logarithm to the dustbin's logit after training; with it inside, a specialist that starts from a generalist starts
    unbiased and need not learn the shift, however short its training.

    Args:
        classes: labels of the m classes, 1 ≤ m < C.
        share: r, of the classes in the data that the specialist is for, where half of what it sees are of them.
        label_smoothing: over the m + 1.

    Shape:
        student [B, C]; label [B]; a scalar.

    Raises:
        TutelageError: no class, one that comes twice or that the logits have not, or none left for the dustbin; a share
            or a smoothing out of range; a wrong shape.

    Distilling the Knowledge in a Neural Network, arXiv:1503.02531, section 5.
    """

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
        """The loss, a scalar."""
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
