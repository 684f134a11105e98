"""Datasets of anyone's as they were given: themselves, what makes them, or a loader of them."""

import logging
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from tutelage.data.chance import own_generators, seed_generators
from tutelage.errors import TutelageError
from tutelage.runtime.file_sizes import free_memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One split: ``dataset`` has ``len`` and ``[row]``; ``collate`` is the loader's custom one, or None."""

    name: str
    dataset: Any
    collate: Callable[[list[Any]], Any] | None = None


def as_part(name: str, given: Any) -> Part:
    """Returns a split from a dataset, a function that returns one, or a loader.

    Raises:
        TutelageError: it is not a dataset, or it is empty.
    """
    collate = None
    if isinstance(given, type) or (callable(given) and not hasattr(given, "__len__")):
        given = given()
    if isinstance(given, DataLoader):
        plain = given.collate_fn is torch.utils.data.default_collate
        _tell_of_order(name, given)
        given, collate = given.dataset, None if plain else given.collate_fn
    if isinstance(given, IterableDataset):
        given = _read(name, given)
    if not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
        raise TutelageError(
            f"{name}: expected a map-style Dataset, with len() and [i], or a function that makes one; found "
            f"{type(given).__name__}"
        )
    if not len(given):
        raise TutelageError(f"{name}: the dataset {type(given).__name__} is empty")
    return Part(name, given, collate)


def _tell_of_order(name: str, loader: DataLoader[Any]) -> None:
    """Warns that a loader's own order is not used, as it would not be reproducible on other ranks or after resuming."""
    own = loader.batch_sampler if type(loader.batch_sampler) is not BatchSampler else loader.sampler
    known = isinstance(loader.dataset, IterableDataset) or own is None
    if name == "data.train" and not known and not isinstance(own, RandomSampler | SequentialSampler):
        log.warning(
            "%s: the loader's %s is not used, as the order is a function of seed and epoch; data.sampler=… has "
            "balanced and weighted ones (tutelage.data.samplers)",
            name, type(own).__name__,
        )  # fmt: skip


def _read(name: str, stream: Iterable[Any]) -> list[Any]:
    """Reads all samples of an iterable dataset, which has no indices for orders, keys and caches.

    Raises:
        TutelageError: they would take more than half of the free memory.
    """
    samples: list[Any] = []
    with own_generators():
        seed_generators(0, name)
        most = None
        for sample in stream:
            most = most or max(1, free_memory() // 2 // max(1, len(pickle.dumps(sample))))
            if len(samples) >= most:
                raise TutelageError(
                    f"{name}: {type(stream).__name__} can only be read from its beginning, and more than {most} of its "
                    "samples don't fit into half of the free memory: keys, splits, caches and exact resumption need a "
                    "map-style Dataset, with len() and [i]"
                )
            samples.append(sample)
    log.info("%s: %d samples of %s were read into memory, once", name, len(samples), type(stream).__name__)
    return samples
