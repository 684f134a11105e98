"""Warns of classes that cannot be learned or cannot be measured, before anything is trained."""

import logging

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
    if not distributed.is_main() or data.num_classes is None or not is_class(data.splits["train"].labels):
        return
    if not data.listed:  # its first labels say little of the others
        return
    counts = {split: _counts(data.splits[split].labels, data.num_classes) for split in ("train", "val", "test")}
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
        named = ", ".join(data.class_names[c] for c in missing[:_MOST]) + (" …" if len(missing) > _MOST else "")
        log.warning(
            "no training example has a label of %d class%s that validation or test have (%s; %d examples there): the "
            "labels can't teach them; see data.val_size, data.labelled and the training files",
            len(missing), "es" if len(missing) > 1 else "", named, int(measured[missing].sum()),
        )  # fmt: skip


def _counts(labels: Tensor, classes: int) -> Tensor:
    """Returns how many examples have each class as their label."""
    return torch.bincount(labels[labels >= 0].long().cpu(), minlength=classes)
