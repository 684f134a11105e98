"""Logits that were computed before, by example key."""

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
    """Gives each example the logits that are on record for its key.

    Args:
        key: [N] int64, which examples, each once.
        logits: [N, C], their logits.
        name: what the errors call the record.
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
        """Checks that nothing but logits is asked for.

        Raises:
            TutelageError: the objective reads something else.
        """
        if extra := sorted(set(needs) - {"logits"}):
            raise TutelageError(f"a record holds logits only; the objective also reads {extra}")

    def rows(self, key: Tensor) -> Tensor:
        """Returns the row numbers [B] of the recorded logits of the examples ``key`` [B].

        Raises:
            TutelageError: an example is not on record.
        """
        rows = self._nearest(key)
        if bool((absent := self.key[rows] != key).any()):
            raise TutelageError(
                f"{self.name}: no logits on record for example {int(key[absent][0])}; it holds {len(self.key)} "
                f"examples, keys {int(self.key[0])} to {int(self.key[-1])}"
            )
        return rows

    def _nearest(self, key: Tensor) -> Tensor:
        return torch.searchsorted(self.key, key).clamp(max=len(self.key) - 1)

    def expect(self, key: Mapping[str, Tensor]) -> None:
        """Refuses examples that are not on record: fidelity is measured on validation."""
        for keys in key.values():
            self.rows(keys)

    def graded(self, data: "Data") -> Mapping[str, tuple[Tensor, Tensor]]:
        """Returns logits and labels of at most 10,000 labelled examples each of validation and training."""
        found = {}
        for split, name in (("train", "training"), ("val", "validation")):
            part = data.splits[split]
            chosen = (part.labels >= 0).nonzero()[:_GRADED, 0]
            logits = self.logits[self.rows(part.keys[chosen].to(self.key.device))]
            found[name] = logits.cpu(), part.labels[chosen].cpu()
        return found

    def forward(self, batch: Batch) -> Signals:
        """The recorded logits of the batch.

        Raises:
            TutelageError: an example is not on record. A device would have to wait for that; :meth:`expect` has looked
                at all examples before.
        """
        rows = self._nearest if devices.waits(batch["key"].device) else self.rows
        return {"logits": self.logits[rows(batch["key"])]}


class RecordedFile(Recorded):
    """A teacher that is known only by its outputs, in a file (:mod:`tutelage.sources.outputs_file` has the layouts).

    Validation examples have keys in the same numbering and must be there too: fidelity is measured on them.

    Args:
        path: .npy, .npz, .csv or .parquet.
        kind: ``logits`` or ``probabilities``; these become logarithms (:func:`tutelage.sources.outputs.as_logits`).
        num_classes: classes of the data.
        floor: what stands for a smaller probability, zero above all. The default changes nothing at T = 1. Where a
            file rounds its probabilities, half its last digit is better: at T > 1 a zero then weighs what it may be.
        augment: what is done to training images. The file knows their plain form only, so this must be nothing;
            ``null`` in its place says that plain outputs shall teach augmented images.
        allow_normalised: whether logits may look like probabilities, which is refused otherwise.

    Raises:
        TutelageError: the file is not what it should be, or images are augmented.
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
                f"{path} holds outputs for images as they are, and data.augment changes them; "
                "sources.teacher.augment=null teaches augmented images by them all the same"
            )
        key, values, columns = read_outputs(Path(path), kind)
        logits = as_logits(values, kind, num_classes, floor, path, key, allow_normalised)
        super().__init__(torch.from_numpy(key), torch.from_numpy(logits), path)
        self._columns = columns
        digest = hashlib.sha256(key.tobytes() + logits.tobytes()).hexdigest()
        log.info("%s: outputs of %d examples for %d classes, SHA-256 %s", path, *logits.shape, digest)

    def name_classes(self, names: Sequence[str]) -> None:
        """Brings the columns of a table into the order of the classes, once."""
        if self._columns is not None:
            order = class_order(self._columns, names, self.name)
            self.logits, self._columns = self.logits[:, order], None

    def rows(self, key: Tensor) -> Tensor:
        """Returns the row numbers of the examples ``key``, as :meth:`Recorded.rows` does.

        Raises:
            TutelageError: an example is not on record, or nobody has said what the classes are called.
        """
        if self._columns is not None:
            raise TutelageError(f"{self.name} has named columns: tell it the classes by name_classes first")
        return super().rows(key)
