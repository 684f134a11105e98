"""Figures of several yes-or-no labels an example, from stored predictions."""

import numpy as np
from sklearn.metrics import average_precision_score

from tutelage.tasks.predictions import SavedPredictions, check_same_examples


def figures(own: SavedPredictions, teacher: SavedPredictions | None = None) -> dict[str, float]:
    """Returns the figures of ``own``; a label of NaN is unknown and counts for nothing.

    A label is predicted where its logit is above 0.

    Args:
        own: logits [N, K], labels [N, K] of 0, 1 or NaN.
        teacher: the same of its teacher.

    Returns:
        ``map`` (mean over labels of the average precision; one without a positive example is left out), ``f1_micro``
        and ``f1_macro`` (of the labels that are there or predicted), ``label_accuracy`` (fraction of right decisions),
        ``nll`` (mean binary cross-entropy of a label, nats), ``count`` (examples); with a teacher ``agreement``
        (fraction of equal decisions) and ``kl_teacher`` (mean over labels of KL(teacher ‖ network), nats).
    """
    z, label = own.logits.astype(np.float64), own.label.astype(np.float64)
    known = ~np.isnan(label)
    positive = np.where(known, label, 0) > 0.5
    predicted = (z > 0) & known
    hits, there, said = ((positive & predicted).sum(0), positive.sum(0), predicted.sum(0))
    precision = [
        average_precision_score(positive[known[:, k], k], z[known[:, k], k]) for k in np.flatnonzero(there > 0)
    ]
    used = there + said > 0
    found: dict[str, float] = {
        "f1_micro": _ratio(2 * hits.sum(), (there + said).sum()),
        "f1_macro": float((2 * hits[used] / (there + said)[used]).mean()) if used.any() else 0.0,
        "label_accuracy": float((predicted == positive)[known].mean()),
        "nll": float((np.logaddexp(0, z) - z * positive)[known].mean()),
        "count": len(label),
    }
    if precision:
        found = {"map": float(np.mean(precision)), **found}
    if teacher is not None:
        check_same_examples(own, teacher)
        t = teacher.logits.astype(np.float64)
        found["agreement"] = float(((z > 0) == (t > 0)).mean())
        found["kl_teacher"] = float(binary_kl(t, z).mean())
    return found


def binary_kl(t: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Returns q·(log q − log p) + (1 − q)·(log(1 − q) − log(1 − p)) with q = σ(t) and p = σ(z)."""
    log_q, log_p = -np.logaddexp(0, -t), -np.logaddexp(0, -z)
    q = np.exp(log_q)
    return np.asarray(q * (log_q - log_p) + (1 - q) * ((log_q - t) - (log_p - z)))


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else 0.0
