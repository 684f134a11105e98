"""Accuracy on classes that were absent in training, before and after one offset is added to their logits.

Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531, section 3: without a
single 3 in the transfer set, the student misclassifies most of them because its bias for them is too low; with
a higher bias nearly all are right. The paper chooses the bias on the test set; here it is chosen on validation data.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import Predictions


def absent_figures(val: Predictions, test: Predictions, classes: Iterable[int]) -> dict[str, Any]:
    """Returns the entry of ``metrics.json`` on the classes that were absent in training.

    Args:
        val: the network's predictions on validation data, which have all classes; the offset is chosen on them.
        test: the same on test data.
        classes: the absent ones.

    Returns:
        ``classes``; ``test``: :func:`by_presence` of the unmodified network; ``offset``: :func:`best_offset`;
        ``corrected``: with the offset, the ``accuracy`` on ``val``, and on ``test`` accuracy, errors and
        :func:`by_presence`.

    Raises:
        TutelageError: ``classes`` is empty, contains all classes, or unknown ones.
    """
    absent = sorted(classes)
    offset = best_offset(val.logits, val.label, absent)
    moved = {name: shifted(p, absent, offset) for name, p in (("val", val), ("test", test))}
    right = {name: p.choice == p.label for name, p in moved.items()}
    errors = int((~right["test"]).sum())
    return {
        "classes": absent,
        "test": by_presence(test, absent),
        "offset": offset,
        "corrected": {
            "val": {"accuracy": float(right["val"].double().mean())},
            "test": {"accuracy": 1 - errors / len(test.label), "errors": errors, **by_presence(moved["test"], absent)},
        },
    }


def by_presence(p: Predictions, classes: Iterable[int]) -> dict[str, float | None]:
    """Returns accuracy on the examples of the absent classes and on all others.

    Returns:
        ``accuracy_absent`` and ``accuracy_present`` (fractions; None without an example), ``count_absent`` and
        ``count_present``.
    """
    of_absent = _mask(p.logits.shape[1], classes)[p.label]
    found: dict[str, float | None] = {}
    for name, rows in (("absent", of_absent), ("present", ~of_absent)):
        count = int(rows.sum())
        right = int((p.choice == p.label)[rows].sum())
        found |= {f"accuracy_{name}": right / count if count else None, f"count_{name}": count}
    return found


def shifted(p: Predictions, classes: Iterable[int], offset: float) -> Predictions:
    """Returns the predictions with ``offset`` added to the logits of the absent classes, in float64."""
    return replace(p, logits=p.logits.double() + offset * _mask(p.logits.shape[1], classes))


def best_offset(logits: Tensor, label: Tensor, classes: Iterable[int]) -> float:
    """Returns the number that, added to the logits of all absent classes, maximises accuracy on these examples.

    The search is exact. The best absent class and the best other class of an example do not depend on the offset b,
    and the former is predicted if b > margin = max_others z − max_absent z. So accuracy is constant between
    neighbouring margins, and jumps at a margin: up if the absent class is right, down if the other one is.
    Candidates are 0, the middle between neighbouring margins, and 1 beyond the outermost; of equally good ones the
    smallest in absolute value is taken, of b and −b the negative one.

    If only two classes were present, the paper lowers their two biases by one number, which equals raising all
    others by it.

    Args:
        logits: [N, C], of validation examples.
        label: [N].
        classes: the absent ones.

    Raises:
        TutelageError: they are empty, contain all classes, or unknown ones.
    """
    absent = _mask(logits.shape[1], classes)
    of_absent, of_others = (logits.double().masked_fill(~kept, -torch.inf).max(1) for kept in (absent, ~absent))
    margin, place = (of_others.values - of_absent.values).unique(return_inverse=True)  # ascending
    jump = (of_absent.indices == label).long() - (of_others.indices == label).long()
    total = torch.zeros(len(margin), dtype=torch.int64).index_add_(0, place, jump).cumsum(0)
    at_least = (of_others.indices == label).sum()  # below every margin no absent class is ever chosen
    candidates = torch.cat([margin[:1] - 1, (margin[1:] + margin[:-1]) / 2, margin[-1:] + 1, torch.zeros(1)])
    right = torch.cat([at_least[None], at_least + total, (logits.argmax(1) == label).sum()[None]])
    best = candidates[right == right.max()]
    return float(best[best.abs().argmin()])


def _mask(count: int, classes: Iterable[int]) -> Tensor:
    """Returns which classes were absent, [C] bool."""
    absent = sorted(classes)
    if not absent or not set(range(count)) > set(absent):
        raise TutelageError(f"absent classes must be some of 0 to {count - 1} and not all; found {absent}")
    mask = torch.zeros(count, dtype=torch.bool)
    mask[absent] = True
    return mask
