"""Reads a teacher's signals from disk, which were computed once instead of in every epoch."""

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
    """Cached signals of ``source`` for the training images, plain or in V augmented views, by example.

    With augmentation, epoch e shows view e mod V of the images (``data.views``), and the signals are those of the same
    view. float32 signals are bit-identical to the teacher's on the same machine.

    With ``top`` = k only the k greatest log-probabilities of an example are stored, and the log of the remaining mass,
    which is spread evenly over the other classes: exact for the stored classes at T = 1, approximate at other T.

    Args:
        source: the teacher; None if ``folder`` is given, so that it need not be in memory.
        folder: written by ``tutelage cache`` or ``tutelage distill``; None in a config means that these find or write
            it, by a digest of everything that determines its content.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        top: k, or None for all classes.
        views: V; needed with augmentation.

    Raises:
        TutelageError: an argument is out of range, or the folder cannot be read.
    """

    row: Tensor
    tokens: dict[str, tuple[int, ...]]

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
        self.on_host = {name: x.flatten(0, 1) for name, x in store.columns.items()}  # view by view, memory-mapped
        self.on_device: dict[str, Tensor] = {}
        self.checksums = store.checksums
        self.tokens, self.constants = store.tokens, list(store.constant)
        for name, tensor in store.constant.items():
            self.register_buffer(_attribute(name), tensor, persistent=False)
        if VALUES in self.names:
            if SIZE not in self.names:
                raise TutelageError(f"{folder} has the top classes in an older format; delete it to compute it again")
            self.classes = int(self.on_host[SIZE][0])
            log.warning("%s has the top classes only: approximate at temperatures other than 1", folder)

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Checks that all signals to be read are stored.

        Raises:
            TutelageError: some are not.
        """
        if self.folder is None:
            assert self.source is not None
            self.source.attach(needs, sources)
            return
        stored = {*self.names, *self.constants} | ({"logits"} if VALUES in self.names else set())
        if missing := sorted(set(needs) - stored):
            raise TutelageError(f"{self.folder} lacks {missing}; it has {sorted(stored)}")

    def expect(self, key: Mapping[str, Tensor]) -> None:
        """Checks that all training examples are stored.

        Raises:
            TutelageError: one is not.
        """
        if self.folder is None:
            return
        train = key["train"]
        rows = self.row[train.clamp(max=len(self.row) - 1)]
        if bool((absent := (rows < 0) | (train >= len(self.row))).any()):
            raise TutelageError(
                f"{self.folder} lacks training example {int(train[absent][0])}: it was written for others, such as of "
                "another data.val_size, data.split_seed or data.labelled"
            )

    def forward(self, batch: Batch) -> Signals:
        """Returns the signals of the batch, in float32, those of tokens as wide as its ``input``."""
        if self.folder is None:
            assert self.source is not None
            return self.source(batch)
        rows = self.row[batch["key"]]
        if "view" in batch:
            rows = rows + batch["view"] * self.count
        if self.checksums is not None:
            self.checksums.check(rows.cpu())
        found = {name: self._column(name, rows, batch) for name in self.names if name != SIZE}
        if VALUES in found:
            values, classes, rest = (found.pop(name) for name in (VALUES, CLASSES, REST))
            found["logits"] = _expand_topk(values, classes, rest, self.classes)
        return found | {name: getattr(self, _attribute(name)) for name in self.constants}

    def after_move(self, convert: Callable[[Tensor], Tensor]) -> None:
        """Moves the signals to the device, in their own dtype, if they fit; else rows are sent at each step."""
        if self.folder is not None and any(x.device != self.row.device for x in self.on_device.values()):
            self.on_device = {}
        if self.folder is not None and not self.on_device and self.row.device.type not in ("cpu", "meta"):
            size = sum(x.nbytes for x in self.on_host.values())
            if size <= SHARE * free_memory(self.row.device):
                if self.checksums is not None:
                    self.checksums.check_all()
                    self.checksums = None
                self.on_device = {name: x.to(self.row.device) for name, x in self.on_host.items()}
            else:
                log.warning("%s: %d MB do not fit on %s: read from the host at each step", *self._place(size))

    @property
    def asks_host(self) -> bool:  # type: ignore[override]
        """Checks whether the signals are fetched from the host because they do not fit on the device."""
        return self.folder is not None and not self.on_device

    def _place(self, size: int) -> tuple[object, ...]:
        return self.folder, size >> 20, self.row.device

    def _column(self, name: str, rows: Tensor, batch: Batch) -> Tensor:
        column = self.on_device[name] if name in self.on_device else self.on_host[name]
        for axis in self.tokens.get(name, ()):
            column = column.narrow(axis + 1, 0, batch["input"].shape[1])  # a view: what is cut off is not read
        if name in self.on_device or rows.device.type == "cpu":
            found = column.index_select(0, rows)
        else:
            found = send(column.index_select(0, rows.cpu()), rows.device)
        return found.float() if found.is_floating_point() else found

    def verify(self) -> None:
        """Verifies the source if there is one."""
        if self.source is not None:
            self.source.verify()


def _attribute(name: str) -> str:
    """Returns the name of a buffer, which may contain no dots."""
    return "stored_" + name.replace(".", "__")


def topk_compress(logits: Tensor, top: int) -> dict[str, Tensor]:
    """Returns the ``top`` greatest log-probabilities of [B, …, C], their classes, the log mass of the others, and C.

    The first three are [B, …, k], [B, …, k] and [B, …, 1], C is [B].
    """
    if logits.dtype != torch.float64:
        logits = logits.float()
    values, classes = logits.topk(min(top + 1, logits.shape[-1]), dim=-1)
    first_other = values[..., -1:]
    values, classes = values[..., :top].double(), classes[..., :top]
    # the sum alone is in float64: 2.5 times as fast as all of it
    others = (logits - first_other).exp_().scatter_(-1, classes, 0.0).sum(-1, keepdim=True, dtype=torch.float64)
    others = others.log() + first_other
    total = values.logsumexp(-1, keepdim=True).logaddexp(others)
    lowest = torch.finfo(torch.float16).min  # finite in every dtype
    size = classes.new_full((len(logits),), logits.shape[-1], dtype=torch.int32)  # exact for every dtype of the others
    return {VALUES: values - total, CLASSES: classes.int(), REST: (others - total).clamp_min(lowest), SIZE: size}


def _expand_topk(values: Tensor, classes: Tensor, rest: Tensor, total: int) -> Tensor:
    others = rest - torch.log(torch.full((), float(max(total - values.shape[-1], 1)), device=rest.device))
    return others.expand(*rest.shape[:-1], total).scatter(-1, classes.long(), values)
