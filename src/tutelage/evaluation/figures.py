"""Figures of a network on labelled examples: how right, how calibrated, how faithful to its teacher.

All are computed in float64 from :class:`~tutelage.evaluation.predictions.Predictions`, whose logits are finite and
whose labels are in range, so that no figure is silently 0 or NaN.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import Predictions, shared


def figures(p: Predictions, teacher: Predictions | None = None) -> dict[str, float]:
    """The figures of ``p``, each over all its examples.

    Args:
        p: what the network answered.
        teacher: what its teacher answered to the same examples in the same order.

    Returns:
        ``accuracy`` (fraction), ``errors`` and ``count`` (integers), ``nll`` (mean −log p(label), nats) and ``ece``
        (15 bins); with a teacher also ``agreement`` (fraction of equal choices) and ``kl_teacher`` (mean
        KL(teacher ‖ network) at T = 1, nats).

    Raises:
        TutelageError: the teacher's examples or classes are not those of ``p``.
    """
    count = len(p.label)
    errors = int((p.choice != p.label).sum())
    log_p = F.log_softmax(p.logits.double(), 1)
    found: dict[str, float] = {
        "accuracy": (count - errors) / count,
        "errors": errors,
        "nll": float(F.nll_loss(log_p, p.label)),
        "ece": expected_calibration_error(p),
        "count": count,
    }
    if teacher is not None:
        _check_same_examples(p, teacher)
        log_q = F.log_softmax(teacher.logits.double(), 1)
        found["agreement"] = float((p.choice == teacher.choice).double().mean())
        found["kl_teacher"] = float(F.kl_div(log_p, log_q, reduction="batchmean", log_target=True))
    return found


def figures_of_own(p: Predictions, teacher: Predictions | None = None) -> dict[str, float]:
    """:func:`figures` on training examples, of which the teacher's may be others: it is compared on those of both."""
    found = figures(p)
    if teacher is not None and (pair := shared(p, teacher)) is not None:
        both = figures(*pair)
        found |= {name: both[name] for name in ("agreement", "kl_teacher")}
    return found


def expected_calibration_error(p: Predictions, bins: int = 15) -> float:
    """Expected calibration error: Σ_b |B_b|/N · |accuracy(B_b) − confidence(B_b)|.

    The confidence is the highest probability; bin b of ``bins`` holds those in ((b − 1)/bins, b/bins], so that 1.0
    falls into the last bin. (torchmetrics closes its bins on the left and gives a confidence of 1.0 a bin of its own;
    the two agree where no confidence lies on an edge.)

    Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, with its 15 bins.
    """
    if bins < 1:
        raise TutelageError(f"expected_calibration_error: bins must be at least 1, found {bins}")
    confidence = F.softmax(p.logits.double(), 1).amax(1)
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    gap = (p.choice == p.label).double() - confidence
    total = torch.zeros(bins, dtype=torch.float64).index_add_(0, torch.bucketize(confidence, edges), gap)
    return float(total.abs().sum() / len(gap))


def confusion(p: Predictions) -> Tensor:
    """[C, C] int64: how many examples of the row's class were taken for the column's."""
    classes = p.logits.shape[1]
    return torch.bincount(p.label * classes + p.choice, minlength=classes**2).view(classes, classes)


def _check_same_examples(p: Predictions, teacher: Predictions) -> None:
    if p.logits.shape != teacher.logits.shape:
        raise TutelageError(
            f"the teacher answered [examples, classes] {list(teacher.logits.shape)}, the network {list(p.logits.shape)}"
        )
    if not torch.equal(p.key, teacher.key):
        first = int((p.key != teacher.key).int().argmax())
        raise TutelageError(
            f"teacher and network answered other examples: at index {first} the teacher's key is "
            f"{int(teacher.key[first])}, the network's {int(p.key[first])}"
        )
