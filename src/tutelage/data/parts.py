"""Datasets of anyone's as they were given: themselves, what makes them, or a loader of them."""

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from tutelage.data.chance import own_generators, seed_generators
from tutelage.data.found_labels import FoundLabels
from tutelage.errors import TutelageError
from tutelage.runtime.file_sizes import free_memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One split: ``dataset`` has ``len`` and ``[row]``; ``collate`` is the loader's custom one, or None.

    Attributes:
        weights: of the rows, by which the loader's own sampler draws them; None where it takes each once.
        count: how many that sampler draws an epoch, and ``replacement`` whether a row may come several times.
        labels: of its samples, once they have been found.
    """

    name: str
    dataset: Any
    collate: Callable[[list[Any]], Any] | None = None
    weights: Tensor | None = None
    count: int | None = None
    replacement: bool = True
    labels: FoundLabels | None = None


def as_part(name: str, given: Any, replaced: bool = False, streamed: bool = False) -> Part:
    """Returns a split from a dataset, a function that returns one, or a loader.

    Args:
        name: for messages.
        given: any of these.
        replaced: whether ``data.sampler`` takes the place of a loader's own sampler.
        streamed: whether the dataset is only read from its beginning on; else an iterable one is read into memory.

    Raises:
        TutelageError: it is not a dataset, it is empty, or a loader's sampler is no function of seed and epoch.
    """
    if isinstance(given, Part):  # of an earlier object of the same data
        return given
    if isinstance(given, type) or (callable(given) and not hasattr(given, "__len__")):
        given = given()
    part = _of_loader(name, given, replaced) if isinstance(given, DataLoader) else Part(name, given)
    if streamed:
        if not isinstance(part.dataset, Iterable) or isinstance(part.dataset, Iterator):
            raise TutelageError(
                f"{name}: expected an IterableDataset, or another object that can be iterated from its beginning in "
                f"each epoch; found {type(part.dataset).__name__}"
            )
        return part
    if isinstance(part.dataset, IterableDataset):
        part = replace(part, dataset=_read(name, part.dataset))
    if not hasattr(part.dataset, "__getitem__") or not hasattr(part.dataset, "__len__"):
        raise TutelageError(
            f"{name}: expected a map-style Dataset, with len() and [i], or a function that makes one; found "
            f"{type(part.dataset).__name__}"
        )
    if not len(part.dataset):
        raise TutelageError(f"{name}: the dataset {type(part.dataset).__name__} is empty")
    return part


def _of_loader(name: str, loader: DataLoader[Any], replaced: bool) -> Part:
    """Returns a loader's dataset with what its sampler chooses of it; its order is not used, as it can't be resumed."""
    collate = None if loader.collate_fn is torch.utils.data.default_collate else loader.collate_fn
    part = Part(name, loader.dataset, collate)
    if loader.worker_init_fn is not None:
        log.warning("%s: the loader's worker_init_fn is not called; samples draw from generators seeded for each", name)
    if isinstance(loader.dataset, IterableDataset):
        return part
    batches = loader.batch_sampler
    own = loader.sampler if batches is None or type(batches) is BatchSampler else batches
    rows = range(len(loader.dataset))  # type: ignore[arg-type]
    if isinstance(own, SubsetRandomSampler):
        return replace(part, dataset=Subset(loader.dataset, sorted(own.indices)))
    if isinstance(own, WeightedRandomSampler) and name == "data.train":
        return (
            part if replaced else replace(part, weights=own.weights, count=own.num_samples, replacement=own.replacement)
        )
    plain = type(own) in (SequentialSampler, DistributedSampler) or (
        isinstance(own, RandomSampler) and not own.replacement and own.num_samples == len(rows)
    )
    if plain or (name == "data.train" and replaced):
        return part
    advice = "data.sampler=… takes its place (tutelage.data.samplers)" if name == "data.train" else "leave it out"
    raise TutelageError(
        f"{name}: the loader's {type(own).__name__} can't be used, as the examples of an epoch are a function of seed "
        f"and epoch; {advice}"
    )


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
                    "samples don't fit into half of the free memory: data=streamed trains on it as it is read; splits, "
                    "caches and few labels need a map-style Dataset, with len() and [i]"
                )
            samples.append(sample)
    log.info("%s: %d samples of %s were read into memory, once", name, len(samples), type(stream).__name__)
    return samples
