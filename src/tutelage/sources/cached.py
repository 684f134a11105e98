"""A teacher's signals from disk, computed once instead of once an epoch."""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tutelage.compat.torch import FollowsMoves
from tutelage.data.resident import SHARE
from tutelage.errors import TutelageError
from tutelage.runtime.devices import free_memory, send
from tutelage.sources.base import Source
from tutelage.sources.store import DTYPES, Store
from tutelage.types import Batch, Signals

log = logging.getLogger(__name__)

VALUES, CLASSES, REST, SIZE = "logits_top", "logits_class", "logits_rest", "logits_size"


class Cached(FollowsMoves, Source):
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
        self.folder, self.supports_validation = folder, folder is None
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
        self.on_host = {name: x.flatten(0, 1) for name, x in store.columns.items()}  # view after view, mapped
        self.on_device: dict[str, Tensor] = {}
        self.constants = list(store.constant)
        for name, tensor in store.constant.items():
            self.register_buffer(_attribute(name), tensor, persistent=False)
        if VALUES in self.names:
            if SIZE not in self.names:
                raise TutelageError(f"{folder} holds the top classes in an older form; delete it to have it anew")
            self.classes = int(self.on_host[SIZE][0])
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
        found = {name: self._column(name, rows) for name in self.names if name != SIZE}
        if VALUES in found:
            values, classes, rest = (found.pop(name) for name in (VALUES, CLASSES, REST))
            found["logits"] = _whole(values, classes, rest, self.classes)
        return found | {name: getattr(self, _attribute(name)) for name in self.constants}

    def after_move(self, convert: Callable[[Tensor], Tensor]) -> None:
        """Moves the signals along, whatever the networks' precision, where they fit beside these; else row by row."""
        if self.folder is not None and any(x.device != self.row.device for x in self.on_device.values()):
            self.on_device = {}
        if self.folder is not None and not self.on_device and self.row.device.type not in ("cpu", "meta"):
            size = sum(x.nbytes for x in self.on_host.values())
            if size <= SHARE * free_memory(self.row.device):
                self.on_device = {name: x.to(self.row.device) for name, x in self.on_host.items()}
            else:
                log.warning("%s: %d MB don't fit on %s: read from the host, step by step", *self._place(size))

    @property
    def asks_host(self) -> bool:  # type: ignore[override]
        """Checks whether the cached signals do not fit on the device and are fetched from the host."""
        return self.folder is not None and not self.on_device

    def _place(self, size: int) -> tuple[object, ...]:
        return self.folder, size >> 20, self.row.device

    def _column(self, name: str, rows: Tensor) -> Tensor:
        if name in self.on_device:
            found = self.on_device[name].index_select(0, rows)
        elif rows.device.type == "cpu":
            found = self.on_host[name].index_select(0, rows)
        else:
            found = send(self.on_host[name].index_select(0, rows.cpu()), rows.device)
        return found.float() if found.is_floating_point() else found

    def verify(self) -> None:
        """Asks the source, where there is one."""
        if self.source is not None:
            self.source.verify()


def _attribute(name: str) -> str:
    """A buffer's name has no dots."""
    return "stored_" + name.replace(".", "__")


def topk_compress(logits: Tensor, top: int) -> dict[str, Tensor]:
    """[B, C] → the ``top`` greatest log-probabilities, their classes, the logarithm of what the others share, and C."""
    p = logits.double().log_softmax(-1)
    values, classes = p.topk(min(top, p.shape[1]), dim=-1)
    others = p.scatter(1, classes, float("-inf")).logsumexp(-1, keepdim=True)
    lowest = torch.finfo(torch.float16).min  # finite in every dtype
    size = p.new_full((len(p),), p.shape[1], dtype=torch.int32)  # exact, whatever the dtype of the others
    return {VALUES: values, CLASSES: classes.int(), REST: others.clamp_min(lowest), SIZE: size}


def _whole(values: Tensor, classes: Tensor, rest: Tensor, total: int) -> Tensor:
    others = rest - torch.log(torch.full((), float(max(total - values.shape[1], 1)), device=rest.device))
    return others.expand(-1, total).scatter(1, classes.long(), values)
