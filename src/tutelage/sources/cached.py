"""A teacher's signals from disk, computed once instead of once an epoch."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.objective import Batch, Signals
from tutelage.sources.base import Source
from tutelage.sources.store import DTYPES, Store

log = logging.getLogger(__name__)

_ON_DEVICE = 1 << 30  # bytes: a smaller column goes where the student is, a larger one stays mapped on the host
VALUES, CLASSES, REST, SIZE = "logits_top", "logits_class", "logits_rest", "logits_size"


class Cached(Source):
    """The signals of ``source`` on the training images, as they are or in V views, by example.

    Where data are augmented, epoch e shows the images of view e mod V (``data.views``), and the signals are those of
    that very view. float32 signals are, bit for bit, what the teacher would say on the same machine.

    With ``top`` = k only the k greatest log-probabilities of an example are kept, and the logarithm of the mass of the
    rest, which is spread evenly over the other classes: exact for the kept classes at T = 1, approximate at others.

    Args:
        source: who teaches; None where ``folder`` is given: then it isn't in memory.
        folder: written by ``tutelage cache`` or ``tutelage distill``; None in a config means that these find it or
            write it, by the content of all that makes it.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        top: k, or None for all classes.
        views: V; needed where data are augmented.

    Raises:
        TutelageError: an argument out of range; a folder that can't be read.
    """

    row: Tensor

    def __init__(
        self,
        source: Source | None,
        folder: str | None = None,
        dtype: str = "float32",
        top: int | None = None,
        views: int | None = None,
    ):
        super().__init__()
        if dtype not in DTYPES or dtype == "int32":
            raise TutelageError(f"a cache's dtype must be float32, float16 or bfloat16; found {dtype!r}")
        for name, value in (("top", top), ("views", views)):
            if value is not None and value < 1:
                raise TutelageError(f"a cache's {name} must be at least 1; found {value}")
        self.source, self.dtype, self.top, self.views = source, dtype, top, views
        self.folder, self.everywhere = folder, folder is None
        if folder is not None:
            self._open(Path(folder))
        elif source is None:
            raise TutelageError("a cache needs a source to write from, or a folder to read")

    def _open(self, folder: Path) -> None:
        store = Store.read(folder)
        row = torch.full((int(store.key.max()) + 1,), -1)
        row[store.key] = torch.arange(len(store.key))
        self.register_buffer("row", row, persistent=False)
        self.count, self.names = len(store.key), list(store.columns)
        columns = {name: x.flatten(0, 1) for name, x in store.columns.items()}  # view after view
        self.on_host = {name: x for name, x in columns.items() if x.nbytes > _ON_DEVICE}
        for name, tensor in columns.items():
            if name not in self.on_host:
                self.register_buffer(_attribute(name), tensor, persistent=False)
        self.constants = list(store.constant)
        for name, tensor in store.constant.items():
            self.register_buffer(_attribute(name), tensor, persistent=False)
        if VALUES in self.names:
            if SIZE not in self.names:
                raise TutelageError(f"{folder} holds the top classes in an older form; delete it to have it anew")
            log.warning("%s holds the top classes only: approximate at temperatures other than 1", folder)

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Refuses signals that were not stored."""
        if self.folder is None:
            assert self.source is not None
            self.source.attach(needs, sources)
            return
        have = {*self.names, *self.constants} | ({"logits"} if VALUES in self.names else set())
        if lacking := sorted(set(needs) - have):
            raise TutelageError(f"{self.folder} lacks {lacking}; it holds {sorted(have)}")

    def expect(self, key: Mapping[str, Tensor]) -> None:
        """Refuses training examples that are not stored."""
        if self.folder is None:
            return
        train = key["train"]
        rows = self.row[train.clamp(max=len(self.row) - 1)]
        if bool((absent := (rows < 0) | (train >= len(self.row))).any()):
            raise TutelageError(f"{self.folder} lacks example {int(train[absent][0])}")

    def forward(self, batch: Batch) -> Signals:
        """The signals of the batch, in float32."""
        if self.folder is None:
            assert self.source is not None
            return self.source(batch)
        rows = self.row[batch["key"]]
        if "view" in batch:
            rows = rows + batch["view"] * self.count
        found = {name: self._column(name, rows) for name in self.names}
        if VALUES in found:
            found["logits"] = _whole(*(found.pop(name) for name in (VALUES, CLASSES, REST, SIZE)))
        return found | {name: getattr(self, _attribute(name)) for name in self.constants}

    def _column(self, name: str, rows: Tensor) -> Tensor:
        if name in self.on_host:
            found = self.on_host[name].index_select(0, rows.cpu()).to(rows.device)
        else:
            found = getattr(self, _attribute(name)).index_select(0, rows)
        return found.float() if found.is_floating_point() else found

    def verify(self) -> None:
        """Asks the source, where there is one."""
        if self.source is not None:
            self.source.verify()


def _attribute(name: str) -> str:
    """A buffer's name has no dots."""
    return "stored_" + name.replace(".", "__")


def shortened(logits: Tensor, top: int) -> dict[str, Tensor]:
    """[B, C] → the ``top`` greatest log-probabilities, their classes, the logarithm of what the others share, and C."""
    p = logits.double().log_softmax(-1)
    values, classes = p.topk(min(top, p.shape[1]), dim=-1)
    others = p.scatter(1, classes, float("-inf")).logsumexp(-1, keepdim=True)
    lowest = torch.finfo(torch.float16).min  # finite in every dtype
    size = p.new_full((len(p),), p.shape[1], dtype=torch.int32)  # exact, whatever the dtype of the others
    return {VALUES: values, CLASSES: classes.int(), REST: others.clamp_min(lowest), SIZE: size}


def _whole(values: Tensor, classes: Tensor, rest: Tensor, size: Tensor) -> Tensor:
    total = int(size[0])
    others = rest - torch.log(torch.tensor(float(max(total - values.shape[1], 1))))
    return others.expand(-1, total).scatter(1, classes.long(), values)
