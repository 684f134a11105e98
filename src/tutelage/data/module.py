"""The base of all data: split, transfer set, order, loaders and fingerprint, for examples of any kind."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, distributed

from tutelage.data.blank import BlankSet
from tutelage.data.examples import Examples, divide
from tutelage.data.labels import has_label, is_class
from tutelage.data.loaded import Loaded, check_arguments, loaded, outputs
from tutelage.data.order import EpochLoader, EpochOrder, position
from tutelage.data.resident import leave, residence_of
from tutelage.data.samplers import Repeated, Sampler
from tutelage.data.transfer import Transfer, Unlabelled
from tutelage.errors import TutelageError
from tutelage.types import Batch


class Data(L.LightningDataModule, ABC):
    """Labelled examples as batches ``{"input": [B, …], "label": [B, …], "key": [B]}``, in a reproducible order.

    A key is the number of an example in the original training set, before validation was split off; validation has the
    same numbering, examples without labels continue it, and the test set has its own. Labels have one of the shapes of
    :mod:`tutelage.data.labels`, and are ``NO_LABEL`` (−100) or NaN where the training set has none. The order of an
    epoch is a function of (seed, epoch), random numbers are one of (seed, view, key): so runs resume bit-identically,
    ranks share batches, and teacher and student see the same images.

    A subclass returns the examples in :meth:`load`, checks them in :meth:`checked`, and makes batches of them in
    :meth:`as_set`; it sets ``input_shape``, and ``augment`` if training examples change by epoch.

    Args:
        num_classes: labels are 0 to num_classes − 1; None: labels are floats.
        batch_size: examples in an optimizer step, over all ranks.
        val_size: number (below 1: fraction) of training examples for validation.
        seed: seed of the order and the augmentation.
        split_seed: seed of the validation split, which runs with different seeds share.
        eval_batch_size: batch size in evaluation.
        drop_last: whether a training epoch drops a last batch that is not full.
        num_workers: number of worker processes.
        class_names: one per class or output; by default their numbers.
        num_outputs: size of the last axis of logits: classes, answers of 0 or 1, or numbers; None: ``num_classes``.
        sampler: draws the training examples of an epoch and their order (:mod:`tutelage.data.samplers`); by default
            every one once, shuffled.
        labelled: number (below 1: fraction) of training examples that keep their label, drawn with ``split_seed``.
            This and the next six form a :class:`~tutelage.data.transfer.Transfer`; validation and test are unaffected.
        classes: the only classes to train on.
        unlabelled: additional examples to train on (:mod:`tutelage.data.unlabelled`).
        repeat_labelled: how often each labelled example occurs in an epoch.
        focus: the classes of half of an epoch's examples, for a specialist.
        long_tail: fraction of its training examples that the last class keeps; class c of C keeps this to the power of
            c / (C − 1).
        made: folder of images of ``tutelage condense`` that take the place of the training images.

    Raises:
        TutelageError: an argument is out of range.
    """

    name: str
    input_shape: tuple[int, ...]  # of one example's ``input``
    input_names: list[str] | None = None  # of the numbers of an ``input`` [F], which a table may have in another order
    vocab_size: int | None = None  # of texts: the highest token id + 1
    tokenizer_digest: str | None = None  # of texts: a SHA-256 of what makes token ids of them
    listed: bool = True  # whether keys and labels of all training examples are known before the first is read
    student_vocab_size: int | None = None  # likewise of a tokenizer that the student alone reads
    student_tokenizer_digest: str | None = None
    ragged: bool = False  # whether rows of different batches have different lengths
    augment: Any = None  # has ``view(epoch)``, ``views`` and ``with_seed(seed)``
    seen_through: ClassVar[tuple[str, ...]] = ()  # keys of the config that decide how content becomes an ``input``

    def __init__(
        self,
        *,
        num_classes: int | None,
        batch_size: int,
        val_size: float,
        seed: int,
        split_seed: int = 0,
        eval_batch_size: int = 512,
        drop_last: bool = True,
        num_workers: int = 0,
        class_names: Sequence[str] | None = None,
        num_outputs: int | None = None,
        sampler: Sampler | None = None,
        labelled: float | None = None,
        classes: Iterable[int] | None = None,
        unlabelled: Iterable[Unlabelled] | None = None,
        repeat_labelled: int = 1,
        focus: Iterable[int] | None = None,
        long_tail: float | None = None,
        made: str | None = None,
    ):
        super().__init__()
        self.name = type(self).__name__
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_classes, self.num_outputs = num_classes, outputs(num_classes, num_outputs)
        self.val_size, self.seed, self.split_seed = val_size, seed, split_seed
        self.drop_last, self.num_workers, self.sampler = drop_last, num_workers, sampler
        self.class_names = list(class_names) if class_names is not None else [str(c) for c in range(self.num_outputs)]
        check_arguments(self)
        self.transfer = Transfer(num_classes, labelled, classes, unlabelled, repeat_labelled, focus, long_tail, made)

    @abstractmethod
    def load(self) -> tuple[Examples, Examples]:
        """Returns all training examples, including validation, and the test examples."""

    @abstractmethod
    def checked(self, part: str, examples: Examples) -> Examples:
        """Checks and returns the examples of ``train`` (including validation) or ``test``; labels int64 or float32.

        Raises:
            TutelageError: they contradict the arguments.
        """

    @abstractmethod
    def as_set(self, examples: Examples, keys: Tensor) -> Any:
        """Returns a subset of the examples without augmentation: a dataset of batches by (epoch, indices).

        A dataclass with a field ``keys``; has ``labels`` [n, …] by place, and ``in_memory``.
        """

    def any_label(self, found: Any) -> bool:
        """Checks whether any label of a set, as :meth:`as_set` returns it, is known."""
        return bool(has_label(found.labels).any())

    def for_training(self, plain: Any, examples: Examples) -> Any:
        """Returns the training set with augmentation, which depends on ``seed``, from the one without."""
        return plain

    def per_epoch(self, train: Any) -> Any:
        """Returns the training set with every example as often as it occurs in an epoch."""
        return self.transfer.epoch(train, self.split_seed)

    def pictures(self, inputs: Tensor) -> Tensor | None:
        """Returns the pixels in [0, 1] of a batch's ``input``, [B, 1 or 3, H, W]; None if inputs are not images."""
        return None

    def shown(self, split: str, keys: Sequence[int]) -> list[str] | None:
        """Returns examples of ``train``, ``val`` or ``test`` by key as text; None if they are not texts."""
        return None

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """Splits ``count`` training examples into training and validation indices: a function of split_seed."""
        return divide(count, self.val_size, "data.val_size", self.split_seed, "val")

    def with_seed(self, seed: int) -> "Data":
        """Returns the same data, loaded only once, with the order and augmentation of another seed."""
        self._fingerprint  # noqa: B018
        other = copy(self)
        other.seed, other.trainer = seed, None
        if self.augment:
            other.augment = self.augment.with_seed(seed)
        train = other.for_training(self._loaded.train, self._loaded.examples)
        other.__dict__["_loaded"] = self._loaded._replace(splits={**self._loaded.splits, "train": train})
        return other

    def without_training(self, rounds: int) -> "Data":
        """Returns the same data for validation and test, with ``rounds`` training batches an epoch that are blank.

        For a student whose images are made while it learns: neither images nor labels of training are read.
        """
        self._fingerprint  # noqa: B018  # of the data as they are
        other, blank = copy(self), BlankSet(torch.arange(rounds * self.batch_size), self.input_shape)
        other.trainer, other.augment, other.sampler, other.drop_last = None, None, None, True
        other.transfer = Transfer(self.num_classes)
        other.__dict__["_loaded"] = self._loaded._replace(train=blank, splits={**self.splits, "train": blank})
        return other

    # -- loading ------------------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Loads, checks and splits the data, once.

        Raises:
            TutelageError: the data contradict the arguments.
        """
        self._loaded  # noqa: B018

    def teardown(self, stage: str | None = None) -> None:
        """Frees the memory on the device of a finished training."""
        leave(self)

    @cached_property
    def _loaded(self) -> Loaded:
        return loaded(self)

    @property
    def splits(self) -> dict[str, Any]:
        """Returns ``train`` (augmented if configured), ``val`` and ``test``, each indexed by (epoch, indices).

        ``train`` has every example once, regardless of repetitions in an epoch.
        """
        return self._loaded.splits

    def at_one_width(self) -> Any:
        """Returns the training set in batches of one width; those of ``splits`` are as wide as their longest row."""
        return self.splits["train"]

    @property
    def known_names(self) -> dict[str, list[str]]:
        """Returns the names of outputs and inputs for the header of a file: those of outputs if not just numbers."""
        plain = self.class_names == [str(c) for c in range(self.num_outputs)]
        found = {} if plain else {"class_names": self.class_names}
        names = self.input_names or []
        if names and len(set(names)) == len(names) and tuple(self.input_shape) == (len(names),):
            found["input_names"] = names
        return found

    @property
    def absent(self) -> list[int]:
        """Returns the classes without a training example; hidden labels count, additional unlabelled images do not.

        Empty if an example has no single class.
        """
        pool, keys = self._loaded.pool, self._loaded.train.keys
        if self.num_classes is None or not is_class(pool.labels):
            return []
        present = {*pool.labels[keys[keys < len(pool)]].unique().tolist(), *self._loaded.train.labels.unique().tolist()}
        return [c for c in range(self.num_classes) if c not in present]

    @property
    def is_streaming(self) -> bool:
        """Checks whether examples are read or made batch by batch."""
        return not self._loaded.train.in_memory

    def fingerprint(self) -> str:
        """Returns a SHA-256 of the loaded content, independent of the split; for files, of paths, sizes and times.

        If the transfer set is not the whole training set, its examples, labels and keys are included.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        content = self._loaded.pool.fingerprint() + self._loaded.test.fingerprint()
        if not self.transfer.is_whole:
            keys = self.per_epoch(self._loaded.train).keys
            content += self._loaded.examples.fingerprint() + keys.numpy().tobytes()
        return hashlib.sha256(content).hexdigest()

    # -- batches ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> EpochLoader:
        """Returns a loader of training batches: shuffled, augmented, resumable."""
        if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            raise TutelageError("overfit_batches replaces the order of examples: use trainer.limit_train_batches")
        return self._loader(*self._epoch(), partial(position, self.trainer) if self.trainer else None)

    def unaugmented_train_loader(self, epoch: int) -> EpochLoader:
        """Returns a loader of one epoch of global training batches, shuffled and augmented, the same on every rank."""
        train, order = self._epoch()
        sampler = order(size=len(train), seed=self.seed)
        sampler.set_epoch(epoch)
        return EpochLoader(train, sampler, residence=residence_of(self))

    def upcoming(self, epoch: int, batch: int) -> Iterator[Callable[[], Batch]]:
        """Yields functions that make this rank's training batches of an epoch, from ``batch`` on."""
        loader = self._loader(*self._epoch())
        loader.sampler.resume(epoch, batch)
        yield from (partial(loader.dataset.__getitem__, request) for request in loader.sampler)

    def _epoch(self) -> tuple[Any, Callable[..., EpochOrder]]:
        """Returns the training set for an epoch, and the order of its batches."""
        train, sampler = self.per_epoch(self.splits["train"]), self.sampler
        order = partial(EpochOrder, batch_size=self.batch_size, shuffle=True, drop_last=self.drop_last)
        if sampler is None:
            return train, order
        draw = partial(sampler, train, self.batch_size)
        shown = train.repeated(sampler.times) if isinstance(sampler, Repeated) else train
        return shown, lambda size, **given: order(size=sampler.size(train), draw=draw, **given)

    def val_dataloader(self) -> EpochLoader:
        """Returns a loader of validation batches."""
        return self._loader(self.splits["val"], self._eval_order(self.splits["val"]))

    def test_dataloader(self) -> EpochLoader:
        """Returns a loader of test batches, for users' Trainers; our metrics use :meth:`whole`."""
        return self._loader(self.splits["test"], self._eval_order(self.splits["test"]))

    def whole(self, split: str) -> EpochLoader:
        """Returns a loader of all of ``train``, ``val`` or ``test`` without augmentation, on one rank.

        In order; where examples have different lengths the shortest first (:meth:`EpochLoader.restored`).
        """
        return self._all_of(self._loaded.train if split == "train" else self.splits[split])

    def labelled(self, most: int | None = None) -> EpochLoader | None:
        """Returns a loader of the labelled training examples (the first ``most``), as :meth:`whole`; None if none."""
        train = self._loaded.train
        if not len(rows := has_label(train.labels).nonzero().flatten()[:most]):
            return None
        return self._all_of(replace(train, keys=train.keys[rows]))

    def sample(self, n: int) -> Batch:
        """Returns the first ``n`` training examples (or all) without augmentation, e.g. to initialise lazy layers.

        Where there are labels at most half of them are unlabelled, so that losses with labels can be initialised too.
        """
        train = self._loaded.train
        rows, bare = torch.arange(len(train)), ~has_label(train.labels)
        unlabelled = n if bare.all() else n // 2 * int(bare.any())
        return train[0, torch.cat([rows[~bare][: n - unlabelled], rows[bare][:unlabelled]])]

    def short_first(self, dataset: Any, rows: Tensor) -> Tensor:
        """Returns rows of a dataset sorted by length, so that batches have little padding; of one length unchanged."""
        return rows[dataset.lengths("input")[dataset.keys[rows]].argsort(stable=True)] if self.ragged else rows

    def _eval_order(self, dataset: Any) -> Callable[..., EpochOrder]:
        order = self.short_first(dataset, torch.arange(len(dataset))) if self.ragged else None
        return partial(EpochOrder, batch_size=self.eval_batch_size, shuffle=False, drop_last=False, order=order)

    def _all_of(self, dataset: Any) -> EpochLoader:
        return EpochLoader(dataset, self._eval_order(dataset)(size=len(dataset), seed=self.seed), self.num_workers)

    def _loader(
        self,
        dataset: Any,
        order: Callable[..., EpochOrder],
        where: Callable[[], tuple[int, int]] | None = None,
    ) -> EpochLoader:
        on = distributed.is_available() and distributed.is_initialized()
        rank, world_size = (distributed.get_rank(), distributed.get_world_size()) if on else (0, 1)
        sampler = order(size=len(dataset), seed=self.seed, rank=rank, world_size=world_size)
        return EpochLoader(dataset, sampler, self.num_workers, where, residence_of(self))
