"""A teacher known by logits that were computed before, looked up by example key."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.runtime import devices
from tutelage.sources.base import Source
from tutelage.sources.output_columns import class_order
from tutelage.sources.outputs import FLOOR, as_logits, check_kind
from tutelage.sources.outputs_file import read_outputs
from tutelage.types import Batch, Signals

if TYPE_CHECKING:
    from tutelage.data.module import Data

log = logging.getLogger(__name__)

_GRADED = 10_000


class Recorded(Source):
    """Returns recorded logits by example key.

    Args:
        key: [N] int64, distinct keys of the examples.
        logits: [N, C], their logits.
        name: name of the record, for messages.
    """

    logits: Tensor
    key: Tensor

    def __init__(self, key: Tensor, logits: Tensor, name: str = "the record"):
        super().__init__()
        self.name = name
        ascending, order = key.sort()
        self.register_buffer("key", ascending, persistent=False)
        self.register_buffer("logits", logits[order], persistent=False)

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Checks that only logits are read.

        Raises:
            TutelageError: the objective reads other signals.
        """
        if extra := sorted(set(needs) - {"logits"}):
            raise TutelageError(f"recorded outputs have logits only; the objective also reads {extra}")

    def rows(self, key: Tensor) -> Tensor:
        """Returns the row numbers [B] of the recorded logits of the examples ``key`` [B].

        Raises:
            TutelageError: an example is not recorded.
        """
        rows = self._nearest(key)
        if bool((absent := self.key[rows] != key).any()):
            raise TutelageError(
                f"{self.name}: no logits for example {int(key[absent][0])}; it has {len(self.key)} examples, "
                f"keys {int(self.key[0])} to {int(self.key[-1])}"
            )
        return rows

    def _nearest(self, key: Tensor) -> Tensor:
        return torch.searchsorted(self.key, key).clamp(max=len(self.key) - 1)

    def expect(self, key: Mapping[str, Tensor]) -> None:
        """Checks that all training and validation examples are recorded; fidelity is measured on the latter.

        Raises:
            TutelageError: one is not.
        """
        for keys in key.values():
            self.rows(keys)

    def graded(self, data: "Data") -> Mapping[str, tuple[Tensor, Tensor]]:
        """Returns logits and labels of up to 10,000 labelled examples each of training and validation."""
        found = {}
        for split, name in (("train", "training"), ("val", "validation")):
            part = data.splits[split]
            if len(part.keys) < len(part.labels):  # a stream whose keys are not known in advance
                continue
            chosen = (part.labels >= 0).nonzero()[:_GRADED, 0]
            logits = self.logits[self.rows(part.keys[chosen].to(self.key.device))]
            found[name] = logits.cpu(), part.labels[chosen].cpu()
        return found

    def forward(self, batch: Batch) -> Signals:
        """Returns the recorded logits of the batch.

        Raises:
            TutelageError: an example is not recorded. Not checked on a GPU, which would have to synchronise;
                :meth:`expect` has checked all examples before.
        """
        rows = self._nearest if devices.waits(batch["key"].device) else self.rows
        return {"logits": self.logits[rows(batch["key"])]}


class RecordedFile(Recorded):
    """A teacher known only by a file of its outputs (:mod:`tutelage.sources.outputs_file` describes the formats).

    Validation examples are numbered with the training examples and must be in the file too, to measure fidelity.

    Args:
        path: .npy, .npz, .csv or .parquet.
        kind: ``logits`` or ``probabilities``, whose logarithms are taken (:func:`tutelage.sources.outputs.as_logits`).
        num_classes: classes of the data.
        floor: replaces smaller probabilities, such as 0. The default changes nothing at T = 1. If the file's
            probabilities are rounded, use half of its last digit: at T > 1 a zero then has a plausible weight.
        augment: the augmentation of the training images. Must be empty, as the outputs are those of plain images;
            ``null`` uses them for augmented images nevertheless.
        allow_normalised: whether logits that look like probabilities are accepted.

    Raises:
        TutelageError: the file is invalid, or images are augmented.
    """

    def __init__(
        self,
        path: str,
        kind: str,
        num_classes: int,
        floor: float = FLOOR,
        augment: Iterable[Any] | None = None,
        allow_normalised: bool = False,
    ):
        check_kind(kind, floor)
        if augment:
            raise TutelageError(
                f"{path} has outputs for unaugmented images, but data.augment augments them; "
                "sources.teacher.augment=null uses the outputs for augmented images nevertheless"
            )
        key, values, columns = read_outputs(Path(path), kind)
        logits = as_logits(values, kind, num_classes, floor, path, key, allow_normalised)
        super().__init__(torch.from_numpy(key), torch.from_numpy(logits), path)
        self._columns = columns
        digest = hashlib.sha256(key.tobytes() + logits.tobytes()).hexdigest()
        log.info("%s: outputs of %d examples for %d classes, SHA-256 %s", path, *logits.shape, digest)

    def name_classes(self, names: Sequence[str]) -> None:
        """Orders the columns of a table by the classes, once."""
        if self._columns is not None:
            order = class_order(self._columns, names, self.name)
            self.logits, self._columns = self.logits[:, order], None

    def rows(self, key: Tensor) -> Tensor:
        """Returns the row numbers of the examples ``key``, as :meth:`Recorded.rows` does.

        Raises:
            TutelageError: an example is not recorded, or :meth:`name_classes` has not been called.
        """
        if self._columns is not None:
            raise TutelageError(f"{self.name} has named columns: call name_classes with the names of the classes first")
        return super().rows(key)
