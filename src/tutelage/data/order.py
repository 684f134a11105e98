"""The order of examples as a pure function of (seed, epoch), and a loader that can resume within an epoch."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, cast, runtime_checkable

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from tutelage import seeding
from tutelage.data.resident import Residence
from tutelage.errors import TutelageError
from tutelage.types import Batch, is_shared

Request = tuple[int, Tensor]  # (epoch, indices), which determine a batch


class Unfinished(tuple[int, Tensor]):
    """A request to a worker process, which may leave pictures in bytes, a quarter as large: see :class:`Finishes`."""


@runtime_checkable
class Finishes(Protocol):
    """A dataset that can leave the last work on a batch to the process that asks for it."""

    def finished(self, batch: Batch) -> Batch:
        """Returns the batch of an :class:`Unfinished` request as that of an ordinary one."""


_BATCHES, _BYTES = 32, 64 << 20  # at most so many batches, and bytes, are made at once on a device


class EpochOrder(DistributedSampler[Request]):
    """Yields ``(epoch, indices)`` for each of this rank's batches.

    The order is ``randperm(size)`` seeded with (seed, "order", epoch). Step k of an epoch is the same set of examples
    on any number of ranks: each rank takes its contiguous slice of the global batch. In evaluation (neither shuffled
    nor dropped) the batches of an epoch have nearly equal length, so that none is empty on any rank, all ranks have
    equally many, and every example comes exactly once without padding.

    It is a ``DistributedSampler`` so that Lightning, seeing that type, doesn't wrap it in another one.

    Args:
        size: the number of examples.
        batch_size: the global batch, over all ranks.
        seed: the run's seed.
        shuffle: whether each epoch has its own order.
        drop_last: whether to drop a last batch that is not full.
        rank: rank of this process.
        world_size: number of processes that share a batch.
        draw: random generator of an epoch → the ``size`` indices of the epoch, instead of a permutation.
        order: [size] the indices in the order of an evaluation; None: ascending.

    Raises:
        TutelageError: training batches cannot be divided equally among ranks, or a rank would have no example.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        rank: int = 0,
        world_size: int = 1,
        draw: Callable[[torch.Generator], Tensor] | None = None,
        order: Tensor | None = None,
    ):
        super().__init__(range(size), world_size, rank, shuffle, seed, drop_last)  # type: ignore[arg-type]
        self.size, self.batch_size, self.draw, self.order = size, batch_size, draw, order
        self.balanced = not (shuffle or drop_last)
        self.device = torch.device("cpu")  # where indices are wanted; the order of an epoch is copied there at once
        self.unfinished = False  # whether requests are :class:`Unfinished`
        self._resume: tuple[int, int] | None = None
        self._check()

    def _check(self) -> None:
        ranks, rest = self.num_replicas, 0 if self.drop_last else self.size % self.batch_size
        if self.balanced and self.size < ranks:
            raise TutelageError(
                f"{self.size} examples can't be evaluated on {ranks} ranks: give each rank at least one"
            )
        if not self.balanced and self.batch_size % ranks:
            raise TutelageError(
                f"batch_size must be a multiple of the {ranks} ranks that share it; found {self.batch_size}"
            )
        if not self.balanced and rest % ranks:
            raise TutelageError(
                f"the last batch of {rest} examples can't be shared equally by {ranks} ranks: set drop_last=true"
            )

    def __len__(self) -> int:
        """Returns the number of batches in a whole epoch."""
        if self.drop_last:
            return self.size // self.batch_size
        full = math.ceil(self.size / self.batch_size)
        return min(full, self.size // self.num_replicas) if self.balanced else full

    def __iter__(self) -> Iterator[Request]:
        # The body runs at the first `next`, as DataLoader calls `iter` more than once for one pass with workers.
        epoch, resume, self._resume = self.epoch, self._resume, None
        order = self._permutation(epoch).to(self.device)
        for step in range(resume[1] if resume and resume[0] == epoch else 0, len(self)):
            request = epoch, order[self._share(step)]
            yield Unfinished(request) if self.unfinished else request

    def resume(self, epoch: int, batch: int) -> None:
        """Makes the next iteration start at ``batch`` if it is of ``epoch``; later ones are whole."""
        self.set_epoch(epoch)
        self._resume = (epoch, batch)

    def _permutation(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.size) if self.order is None else self.order
        chance = seeding.generator(self.seed, "order", epoch)
        if self.draw is None:
            return torch.randperm(self.size, generator=chance)
        if len(order := self.draw(chance)) != self.size:
            raise TutelageError(f"data.sampler: epoch {epoch} has {len(order)} examples; the first had {self.size}")
        return order

    def _share(self, step: int) -> slice:
        if self.balanced:
            begin, end = (k * self.size // len(self) for k in (step, step + 1))
        else:
            begin, end = step * self.batch_size, min((step + 1) * self.batch_size, self.size)
        first, last = (begin + k * (end - begin) // self.num_replicas for k in (self.rank, self.rank + 1))
        return slice(first, last)


class EpochLoader(DataLoader[Batch]):
    """Fetches whole batches by ``(epoch, indices)``; its position in an epoch can be saved and restored.

    An iteration starts, workers included, at its first ``next``: Lightning calls ``iter`` before it tells the sampler
    which epoch it is. The workers draw nothing, and the global random state is not touched.

    Args:
        dataset: maps ``(epoch, indices)`` to a batch.
        sampler: the order.
        num_workers: number of worker processes, which live for the whole run.
        position: returns the consumer's (epoch, batches trained on), without prefetched ones.
        residence: copies the dataset to the training device at the first iteration, if it fits.
    """

    sampler: EpochOrder

    def __init__(
        self,
        dataset: Dataset[Batch],
        sampler: EpochOrder,
        num_workers: int = 0,
        position: Callable[[], tuple[int, int]] | None = None,
        residence: Residence | None = None,
    ):
        cuda = torch.cuda.is_available() if residence is None else residence.device.type == "cuda"
        super().__init__(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            pin_memory=cuda,
            generator=torch.Generator(),  # DataLoader draws a seed for its workers, by default from the global one
            persistent_workers=num_workers > 0,
        )
        self.position, self.residence = position, residence

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        if self.residence is not None and (resident := self.residence.take(self.dataset)) is not None:
            self.sampler.device = self.residence.device
            yield from _by_chunks(cast(Dataset[Batch], resident), self.sampler, resident.batch_dim)
            return
        if not (self.num_workers or self.pin_memory):  # what DataLoader would do, at a third of its cost
            yield from map(self.dataset.__getitem__, self.sampler)
            return
        try:
            if not self.pin_memory and isinstance(self.dataset, Finishes):  # pinned batches go to a device as they are
                self.sampler.unfinished = True
                yield from map(self.dataset.finished, super().__iter__())
            else:
                yield from super().__iter__()
        except TutelageError as error:
            if not self.num_workers:
                raise
            message = str(error).rpartition(f"{TutelageError.__name__}: ")[2].strip()  # behind the worker's traceback
            # torch's own traceback forms a cycle that holds the iterator; ended by the garbage collector, which takes
            # its queues first, the workers would not hear of it and be waited for, 5 seconds each
            raise TutelageError(message) from error.with_traceback(None)

    def restored(self, x: Tensor) -> Tensor:
        """Returns rows [N, …] of all batches of an evaluation in the order of the dataset."""
        return x if self.sampler.order is None else x[self.sampler.order.argsort()]

    def state_dict(self) -> dict[str, int]:
        """Returns the consumer's position: ``{"epoch": e, "batch": k}`` after k batches of epoch e."""
        if self.position is None:
            raise TutelageError("this loader can't say how far its consumer is: it was made without `position`")
        epoch, batch = self.position()
        return {"epoch": epoch, "batch": batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration start where ``state`` was taken.

        Raises:
            TutelageError: the epoch has fewer batches than were done, so data or batch size are not the same.
        """
        if state["batch"] > len(self):
            raise TutelageError(
                f"can't resume after batch {state['batch']} of epoch {state['epoch']}: an epoch of this data has "
                f"{len(self)} batches. Has the dataset, its split or batch_size changed?"
            )
        self.sampler.resume(state["epoch"], state["batch"])


def position(trainer: Trainer) -> tuple[int, int]:
    """Returns the trainer's epoch and the number of its batches trained on, as Lightning counts them.

    After the last batch Lightning starts the next epoch at its beginning, regardless of this.
    """
    fit: Any = trainer.fit_loop
    return fit.epoch_progress.current.processed, fit.epoch_loop.batch_progress.current.processed


def _by_chunks(dataset: Dataset[Batch], requests: Iterable[Request], dim: int) -> Iterator[Batch]:
    """Yields batches of a dataset on a device, cut from larger ones, as launching a kernel costs more than its work."""
    requests = iter(requests)
    for epoch, first in requests:
        batch = dataset[epoch, first]
        yield batch
        own = [name for name in batch if not is_shared(name)]
        at_once = max(1, min(_BATCHES, _BYTES // max(1, sum(batch[name].nbytes for name in own))))
        while some := [indices for _, indices in islice(requests, at_once)]:
            chunk = dataset[epoch, torch.cat(some)]
            parts = [chunk[name].split([len(indices) for indices in some], dim) for name in own]
            yield from ({**chunk, **dict(zip(own, part, strict=True))} for part in zip(*parts, strict=True))


def _as_it_is(batch: Any) -> Any:
    return batch
