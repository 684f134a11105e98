"""Metrics of a network on labelled examples: accuracy, calibration, fidelity to its teacher.

All are computed in float64 from predictions whose logits are finite and whose labels are in range
(:class:`~tutelage.tasks.predictions.SavedPredictions`), so that no figure is silently 0 or NaN.
NumPy computes them: a report reads thousands of runs without PyTorch.
"""

import numpy as np

from tutelage.errors import TutelageError
from tutelage.tasks.predictions import (
    Labelled,
    arrays,
    check_same_examples,
    confidence,
    log_softmax,
    shared,
)


def figures(p: Labelled, teacher: Labelled | None = None) -> dict[str, float]:
    """Returns the metrics of ``p`` over all its examples.

    Args:
        p: the network's predictions.
        teacher: its teacher's predictions for the same examples in the same order.

    Returns:
        ``accuracy`` (fraction), ``errors`` and ``count`` (integers), ``nll`` (mean −log p(label), nats) and ``ece``
        (15 bins); with a teacher also ``agreement`` (fraction of equal choices) and ``kl_teacher`` (mean
        KL(teacher ‖ network) at T = 1, nats).

    Raises:
        TutelageError: the teacher's examples or classes are not those of ``p``.
    """
    own = arrays(p)
    count = len(own.label)
    errors = int((own.choice != own.label).sum())
    log_p = log_softmax(own.logits)
    found: dict[str, float] = {
        "accuracy": (count - errors) / count,
        "errors": errors,
        "nll": float(-log_p[np.arange(count), own.label].mean()),
        "ece": expected_calibration_error(own),
        "count": count,
    }
    if teacher is not None:
        theirs = arrays(teacher)
        check_same_examples(own, theirs)
        log_q = log_softmax(theirs.logits)
        found["agreement"] = float((own.choice == theirs.choice).mean())
        found["kl_teacher"] = float((np.exp(log_q) * (log_q - log_p)).sum(1).mean())
    return found


def figures_of_own(p: Labelled, teacher: Labelled | None = None) -> dict[str, float]:
    """Returns :func:`figures` on training examples; fidelity is measured on the examples that both have."""
    found = figures(p)
    if teacher is not None and (pair := shared(p, teacher)) is not None:
        both = figures(*pair)
        found |= {name: both[name] for name in ("agreement", "kl_teacher")}
    return found


def expected_calibration_error(p: Labelled, bins: int = 15) -> float:
    """Returns the expected calibration error: Σ_b |B_b|/N · |accuracy(B_b) − confidence(B_b)|.

    The confidence is the highest probability; bin b of ``bins`` is ((b − 1)/bins, b/bins], so that 1.0
    is in the last bin. (torchmetrics closes its bins on the left and has a separate bin for a confidence of 1.0;
    both agree if no confidence lies on an edge.)

    Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599, with its 15 bins.
    """
    if bins < 1:
        raise TutelageError(f"expected_calibration_error: bins must be at least 1, found {bins}")
    own = arrays(p)
    sure = confidence(own)
    total = np.bincount(bin_of(sure, bins), (own.choice == own.label) - sure, minlength=bins)
    return float(np.abs(total).sum() / len(sure))


def bin_of(sure: np.ndarray, bins: int) -> np.ndarray:
    """Returns the index of each confidence's bin, of ``bins`` bins closed on the right."""
    return np.searchsorted(np.arange(1, bins) / bins, sure)


def confusion(p: Labelled) -> np.ndarray:
    """Returns the confusion matrix [C, C] int64: rows true, columns predicted."""
    own = arrays(p)
    classes = own.logits.shape[1]
    return np.bincount(own.label * classes + own.choice, minlength=classes**2).reshape(classes, classes)
