"""Figures of one class for each pixel or token, from totals of each example."""

from collections.abc import Mapping

import numpy as np


def figures(fields: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns the figures of totals [N].

    Args:
        fields: of each example over its labelled positions: ``positions`` (how many), ``hits`` (right ones), ``nll``
            (sum of −log p(label)); with a teacher ``agree`` and ``kl`` (sums).

    Returns:
        ``accuracy`` (fraction of positions), ``nll`` (mean, nats), ``count`` (examples); with a teacher ``agreement``
        (fraction of equal choices) and ``kl_teacher`` (mean KL(teacher ‖ network) at T = 1, nats), over positions.
    """
    positions = max(1, int(fields["positions"].sum(dtype=np.int64)))
    found: dict[str, float] = {
        "accuracy": float(fields["hits"].sum(dtype=np.int64) / positions),
        "nll": float(fields["nll"].sum(dtype=np.float64) / positions),
        "count": len(fields["positions"]),
    }
    if "kl" in fields:
        found["agreement"] = float(fields["agree"].sum(dtype=np.int64) / positions)
        found["kl_teacher"] = float(fields["kl"].sum(dtype=np.float64) / positions)
    return found


def mean_iou(both: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> float | None:
    """Returns the mean over classes of intersection over union, of counts [N, C] of pixels; None without a pixel.

    A class that is neither there nor predicted is left out.
    """
    hits, union = both.sum(0, dtype=np.int64), (predicted + true).sum(0, dtype=np.int64) - both.sum(0, dtype=np.int64)
    used = union > 0
    return float((hits[used] / union[used]).mean()) if used.any() else None


def f1(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> float:
    """Returns 2·hits / (predicted + true) of counts [N], over all examples; 0 without any."""
    total = int(predicted.sum(dtype=np.int64) + true.sum(dtype=np.int64))
    return 2 * int(hits.sum(dtype=np.int64)) / total if total else 0.0


def spans(tags: list[str]) -> set[tuple[str, int, int]]:
    """Returns the spans of a sequence of BIO tags: (type, first, last).

    As conlleval counts them: a span begins at ``B-x``, and at ``I-x`` that follows no tag of type x.
    """
    found, begun = set(), None
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        if begun is not None and (prefix != "I" or kind != begun[0]):
            found.add((*begun, place - 1))
            begun = None
        if prefix in ("B", "I") and begun is None:
            begun = (kind, place)
    return found
