"""Logits that were computed before, by example key."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.objective import Batch, Signals
from tutelage.sources.base import Source


class Recorded(Source):
    """Gives each example the logits that are on record for its key.

    Args:
        key: [N] int64, which examples.
        logits: [N, C], their logits.
    """

    logits: Tensor
    row: Tensor

    def __init__(self, key: Tensor, logits: Tensor):
        super().__init__()
        row = torch.full((int(key.max()) + 1,), -1)
        row[key] = torch.arange(len(key))
        self.register_buffer("row", row, persistent=False)
        self.register_buffer("logits", logits, persistent=False)

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Checks that nothing but logits is asked for."""
        if extra := sorted(set(needs) - {"logits"}):
            raise TutelageError(f"a record holds logits only; the objective also reads {extra}")

    def forward(self, batch: Batch) -> Signals:
        """The recorded logits of the batch.

        Raises:
            TutelageError: an example is not on record.
        """
        key = batch["key"]
        rows = self.row[key.clamp(max=len(self.row) - 1)]
        if bool(((rows < 0) | (key >= len(self.row))).any()):
            raise TutelageError(f"no logits on record for example {int(key[(rows < 0) | (key >= len(self.row))][0])}")
        return {"logits": self.logits[rows]}
