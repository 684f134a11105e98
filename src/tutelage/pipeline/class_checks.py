"""Warns of classes that cannot be learned or cannot be measured, before anything is trained."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.data.labels import is_class
from tutelage.data.module import Data
from tutelage.runtime import distributed

log = logging.getLogger(__name__)

_MOST = 5  # classes that a warning names


def warn_of_classes(data: Data) -> None:
    """Warns where a split has a single class, and where training has no label of a class that is measured.

    Classes that the config leaves out on purpose (``data.classes``) and training without any label are not mentioned,
    nor are data whose examples have no single class.

    Args:
        data: loaded.
    """
    if (counts := _counts(data)) is None:
        return
    for split, count in counts.items():
        present = count.nonzero().flatten().tolist()
        if len(present) == 1 and (split != "train" or data.transfer.classes is None):
            log.warning(
                "ALL %d LABELS OF %s ARE OF ONE CLASS (%s, of %d classes): nothing is learned or measured there",
                int(count.sum()), split, data.class_names[present[0]], data.num_classes,
            )  # fmt: skip
    train, measured = counts["train"], counts["val"] + counts["test"]
    if not train.any() or data.transfer.classes is not None:
        return
    if missing := ((train == 0) & (measured > 0)).nonzero().flatten().tolist():
        log.warning(
            "no training example has a label of %d class%s that validation or test have (%s; %d examples there): the "
            "labels can't teach them; see data.val_size, data.labelled and the training files",
            len(missing), "es" if len(missing) > 1 else "", _named(data, missing), int(measured[missing].sum()),
        )  # fmt: skip


def warn_of_unmeasured_classes(data: Data) -> None:
    """Warns of classes of which validation or test has no example, so that its figures say nothing of them.

    Args:
        data: loaded.
    """
    if (counts := _counts(data)) is None:
        return
    known = torch.stack([*counts.values()]).sum(0) > 0
    for split in ("val", "test"):
        if absent := ((counts[split] == 0) & known).nonzero().flatten().tolist():
            log.warning(
                "%s: the %s split, of %d examples, has none of %d classes: %s",
                data.name, split, int(counts[split].sum()), len(absent), _named(data, absent),
            )  # fmt: skip


def _named(data: Data, classes: Sequence[int]) -> str:
    return ", ".join(data.class_names[c] for c in classes[:_MOST]) + (" …" if len(classes) > _MOST else "")


def _counts(data: Data) -> dict[str, Tensor] | None:
    """Returns how many examples of each split have each class as their label; None where that says nothing."""
    if not distributed.is_main() or data.num_classes is None or not is_class(data.splits["train"].labels):
        return None
    if not data.listed:  # its first labels say little of the others
        return None
    labels = {split: data.splits[split].labels for split in ("train", "val", "test")}
    return {
        split: torch.bincount(own[own >= 0].long().cpu(), minlength=data.num_classes) for split, own in labels.items()
    }
