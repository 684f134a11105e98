"""Figures of numbers to be predicted, from stored predictions."""

import numpy as np
from scipy.stats import rankdata

from tutelage.tasks.predictions import SavedPredictions, check_same_examples


def figures(own: SavedPredictions, teacher: SavedPredictions | None = None) -> dict[str, float]:
    """Returns the figures of ``own``; a label of NaN is unknown and counts for nothing.

    Args:
        own: values [N, d] as logits, labels [N, d].
        teacher: the same of its teacher.

    Returns:
        ``rmse`` and ``mae`` over all numbers, in units of the label; ``r2``, ``pearson`` and ``spearman``: means over
        the targets, of examples with all labels, left out where one is not defined (a constant); ``count`` (examples);
        with a teacher ``mse_teacher`` (mean squared difference) and ``pearson_teacher``.
    """
    values, label = own.logits.astype(np.float64), own.label.astype(np.float64)
    error = (values - label)[~np.isnan(label)]
    found: dict[str, float] = {
        "rmse": float(np.sqrt((error**2).mean())),
        "mae": float(np.abs(error).mean()),
        "count": len(label),
    }
    whole = ~np.isnan(label).any(1)
    x, y = values[whole], label[whole]
    spread = ((y - y.mean(0)) ** 2).sum(0) if len(y) else np.zeros(1)
    if (spread > 0).all():
        found["r2"] = float((1 - ((x - y) ** 2).sum(0) / spread).mean())
    correlations = {
        "pearson": correlation(x, y),
        "spearman": correlation(*(rankdata(one, axis=0) if len(one) else one for one in (x, y))),
    }
    if teacher is not None:
        check_same_examples(own, teacher)
        theirs = teacher.logits.astype(np.float64)
        found["mse_teacher"] = float(((values - theirs) ** 2).mean())
        correlations["pearson_teacher"] = correlation(values, theirs)
    return found | {name: value for name, value in correlations.items() if value is not None}


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Returns Pearson's correlation of two arrays [n, d], the mean over d; None if one of them is constant."""
    if len(a) < 2:
        return None
    a, b = a - a.mean(0), b - b.mean(0)
    norm = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    if not (norm > 1e-12 * len(a)).all():
        return None
    return float(((a * b).sum(0) / norm).mean())
