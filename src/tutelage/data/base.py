"""The base of all image data: split, checks, loaders, fingerprint."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor, distributed

from tutelage.data.augment import Augment, Step
from tutelage.data.examples import (
    Examples,
    ImageSet,
    MemoryPixels,
    Normalise,
    check_images,
    check_labels,
    divide,
    normalised,
)
from tutelage.data.order import EpochLoader, EpochOrder, position
from tutelage.data.resident import leave, residence_of
from tutelage.data.transfer import Transfer, Unlabelled
from tutelage.errors import TutelageError
from tutelage.types import Batch


class ImageData(L.LightningDataModule, ABC):
    """Images with labels, as batches ``{"input": [B, C, H, W] float32 normalised, "label": [B], "key": [B]}``.

    A key is the number of an example in the original training set, before validation was split off; validation has the
    same numbering, images without labels continue it, and the test set has its own. A label is ``NO_LABEL`` (−100)
    where the training set has none. A subclass says in :meth:`load` what the examples are.

    Args:
        num_classes: labels are 0 to num_classes − 1.
        input_shape: (C, H, W).
        batch_size: examples in an optimizer step, over all ranks.
        val_size: how many training examples are for validation; a number, or a fraction below 1.
        seed: of the order and the augmentation.
        mean: of a pixel in [0, 1], one number a channel.
        std: the same.
        split_seed: of the validation split, so that runs with different seeds share it.
        eval_batch_size: the same as ``batch_size``, in evaluation.
        drop_last: whether a training epoch leaves out a last batch that is not full.
        num_workers: processes that fetch.
        augment: steps (:mod:`tutelage.data.augment`) on training images.
        views: how many different pictures augmentation makes of an example; epoch e shows number e mod views.
        class_names: one a class; by default their numbers.
        check_finite: whether to refuse NaN and ±∞ among pixels that are given as floats.
        labelled: how many training examples keep their label, as a function of ``split_seed``; a number, or a fraction
            below 1. These five make a :class:`~tutelage.data.transfer.Transfer`; validation and test stay as they are.
        classes: the only classes to train on.
        unlabelled: further images to train on (:mod:`tutelage.data.unlabelled`).
        repeat_labelled: how many times an epoch has each labelled example.
        focus: the classes of half of an epoch's examples, for a specialist.

    Raises:
        TutelageError: an argument is out of range.
    """

    name: str

    def __init__(
        self,
        *,
        num_classes: int,
        input_shape: Sequence[int],
        batch_size: int,
        val_size: float,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        split_seed: int = 0,
        eval_batch_size: int = 512,
        drop_last: bool = True,
        num_workers: int = 0,
        augment: Iterable[Step] | None = None,
        views: int | None = None,
        class_names: Sequence[str] | None = None,
        check_finite: bool = True,
        labelled: float | None = None,
        classes: Iterable[int] | None = None,
        unlabelled: Iterable[Unlabelled] | None = None,
        repeat_labelled: int = 1,
        focus: Iterable[int] | None = None,
    ):
        super().__init__()
        self.name = type(self).__name__
        self.num_classes, self.input_shape = num_classes, tuple(input_shape)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_size, self.seed, self.split_seed = val_size, seed, split_seed
        self.drop_last, self.num_workers, self.check_finite = drop_last, num_workers, check_finite
        self.augment = Augment(augment, seed, views) if augment else None
        self.class_names = list(class_names) if class_names else [str(c) for c in range(num_classes)]
        self._check_arguments(mean, std)
        self.transfer = Transfer(num_classes, labelled, classes, unlabelled, repeat_labelled, focus)
        self.normalise = Normalise(*(torch.tensor([*x], dtype=torch.float32)[:, None, None] for x in (mean, std)))

    @abstractmethod
    def load(self) -> tuple[Examples, Examples]:
        """All training examples, validation included, and the test examples."""

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """Splits ``count`` training examples into training and validation indices: a function of split_seed."""
        return divide(count, self.val_size, "data.val_size", self.split_seed, "val")

    def with_seed(self, seed: int) -> "ImageData":
        """The same examples, loaded and digested once for both, in the order and augmentation of another seed."""
        self._fingerprint  # noqa: B018
        other = copy(self)
        other.seed, other.trainer = seed, None
        if self.augment:
            other.augment = Augment(self.augment.steps, seed, self.augment.views)
            train = replace(self._loaded.splits["train"], augment=other.augment)
            other.__dict__["_loaded"] = self._loaded._replace(splits={**self._loaded.splits, "train": train})
        return other

    # -- loading ------------------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Loads, checks and splits, once; what needs data does the same by itself.

        Raises:
            TutelageError: the data are not what the arguments say.
        """
        self._loaded  # noqa: B018

    def teardown(self, stage: str | None = None) -> None:
        """Leaves the device of a training that has ended."""
        leave(self)

    @cached_property
    def _loaded(self) -> "_Loaded":
        pool, test = (
            self._checked(part, examples) for part, examples in zip(("train", "test"), self.load(), strict=True)
        )
        train_keys, val_keys = self.split(len(pool))
        examples, keys = self.transfer.choose(pool, train_keys, self.input_shape, self.split_seed)
        train = self._plain(examples, keys)
        self._check_sizes(
            {"train": len(self.transfer.epoch(train, self.split_seed)), "val": len(val_keys), "test": len(test)}
        )
        splits = {
            "train": ImageSet(examples, keys, self.normalise, self.augment) if self.augment else train,
            "val": replace(train, keys=val_keys),
            "test": self._plain(test, torch.arange(len(test))),
        }
        return _Loaded(pool, test, examples, train, splits)

    def _plain(self, examples: Examples, keys: Tensor) -> ImageSet:
        if isinstance(examples.pixels, MemoryPixels):
            return ImageSet(normalised(examples, self.normalise), keys)
        return ImageSet(examples, keys, self.normalise)

    @property
    def splits(self) -> dict[str, ImageSet]:
        """``train`` (augmented where so configured), ``val`` and ``test``, each asked with (epoch, indices).

        ``train`` has every example once, however often an epoch has it.
        """
        return self._loaded.splits

    @property
    def named_classes(self) -> dict[str, list[str]]:
        """The names of the classes for the header of a file, where they are more than numbers."""
        plain = self.class_names == [str(c) for c in range(self.num_classes)]
        return {} if plain else {"class_names": self.class_names}

    @property
    def absent(self) -> list[int]:
        """The classes that no training example is of; a hidden label counts, images that never had one don't."""
        pool, keys = self._loaded.pool, self._loaded.train.keys
        present = set(pool.labels[keys[keys < len(pool)]].unique().tolist())
        return [c for c in range(self.num_classes) if c not in present]

    @property
    def is_streaming(self) -> bool:
        """Checks whether images are read from files batch by batch."""
        return not isinstance(self._loaded.train.examples.pixels, MemoryPixels)

    def fingerprint(self) -> str:
        """SHA-256 of the content that was loaded, whatever the split; of files it takes paths, sizes and times.

        Where the transfer set is not the whole training set, its examples, labels and keys count as well.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        content = self._loaded.pool.fingerprint() + self._loaded.test.fingerprint()
        if not self.transfer.is_whole:
            keys = self.transfer.epoch(self._loaded.train, self.split_seed).keys
            content += self._loaded.examples.fingerprint() + keys.numpy().tobytes()
        return hashlib.sha256(content).hexdigest()

    # -- batches ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> EpochLoader:
        """Training batches: shuffled, augmented, resumable."""
        if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            raise TutelageError("overfit_batches replaces the order of examples: use trainer.limit_train_batches")
        order = partial(EpochOrder, batch_size=self.batch_size, shuffle=True, drop_last=self.drop_last)
        train = self.transfer.epoch(self.splits["train"], self.split_seed)
        return self._loader(train, order, partial(position, self.trainer) if self.trainer else None)

    def unaugmented_train_loader(self, epoch: int) -> EpochLoader:
        """One epoch of whole training batches, shuffled and augmented, the same on every rank."""
        train = self.transfer.epoch(self.splits["train"], self.split_seed)
        order = EpochOrder(len(train), self.batch_size, self.seed, shuffle=True, drop_last=self.drop_last)
        order.set_epoch(epoch)
        return EpochLoader(train, order, residence=residence_of(self))

    def val_dataloader(self) -> EpochLoader:
        """Validation examples."""
        return self._loader(self.splits["val"], self._eval_order)

    def test_dataloader(self) -> EpochLoader:
        """Test examples, for a Trainer of one's own: our figures are of :meth:`whole`."""
        return self._loader(self.splits["test"], self._eval_order)

    def whole(self, split: str) -> EpochLoader:
        """All of ``train``, ``val`` or ``test`` in its own order and as it is, on one rank, however many there are."""
        dataset = self._loaded.train if split == "train" else self.splits[split]
        return EpochLoader(dataset, self._eval_order(size=len(dataset), seed=self.seed), self.num_workers)

    def labelled(self, most: int | None = None) -> EpochLoader | None:
        """The training examples that have a label (the first ``most``), as :meth:`whole` gives them; None without."""
        train = self._loaded.train
        if not len(rows := (train.labels >= 0).nonzero().flatten()[:most]):
            return None
        chosen = replace(train, keys=train.keys[rows])
        return EpochLoader(chosen, self._eval_order(size=len(chosen), seed=self.seed), self.num_workers)

    def sample(self, n: int) -> Batch:
        """The first ``n`` training examples (or all) as they are, such as a lazy layer must see once.

        Where some have no label, these are at most the half: a loss that reads labels must see some as well.
        """
        train = self._loaded.train
        rows, bare = torch.arange(len(train)), train.labels < 0
        return train[0, torch.cat([rows[~bare][: n - n // 2 * int(bare.any())], rows[bare][: n // 2]])]

    @property
    def _eval_order(self) -> Callable[..., EpochOrder]:
        return partial(EpochOrder, batch_size=self.eval_batch_size, shuffle=False, drop_last=False)

    def _loader(
        self,
        dataset: ImageSet,
        order: Callable[..., EpochOrder],
        where: Callable[[], tuple[int, int]] | None = None,
    ) -> EpochLoader:
        on = distributed.is_available() and distributed.is_initialized()
        rank, world_size = (distributed.get_rank(), distributed.get_world_size()) if on else (0, 1)
        sampler = order(size=len(dataset), seed=self.seed, rank=rank, world_size=world_size)
        return EpochLoader(dataset, sampler, self.num_workers, where, residence_of(self))

    # -- checks -------------------------------------------------------------------------------------------------------

    def _check_arguments(self, mean: Sequence[float], std: Sequence[float]) -> None:
        least = {"num_classes": 1, "batch_size": 1, "eval_batch_size": 1, "num_workers": 0}
        for key, minimum in least.items():
            if getattr(self, key) < minimum:
                raise TutelageError(f"data.{key} must be at least {minimum}; found {getattr(self, key)}")
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise TutelageError(f"data.input_shape must be [channels, height, width]; found {list(self.input_shape)}")
        for key, values in (("mean", mean), ("std", std)):
            if len(values) != self.input_shape[0]:
                raise TutelageError(
                    f"data.{key} needs {self.input_shape[0]} numbers, one a channel; found {list(values)}"
                )
        if min(std) <= 0:
            raise TutelageError(f"data.std must be above 0; found {list(std)}")
        if len(self.class_names) != self.num_classes:
            raise TutelageError(f"data.class_names has {len(self.class_names)} names for {self.num_classes} classes")

    def _checked(self, part: str, examples: Examples) -> Examples:
        name = f"{self.name} {part}"
        check_labels(name, examples.labels, self.num_classes)
        if isinstance(examples.pixels, MemoryPixels):
            check_images(name, examples.pixels.images, len(examples), self.input_shape, self.check_finite)
        return replace(examples, labels=examples.labels.long())

    def _check_sizes(self, sizes: dict[str, int]) -> None:
        for part, size in sizes.items():
            if not size:
                raise TutelageError(f"{self.name}: the {part} split is empty: {sizes}")
        if self.drop_last and sizes["train"] < self.batch_size:
            raise TutelageError(
                f"{self.name}: {sizes['train']} training examples don't fill one batch of {self.batch_size} "
                "and drop_last=true leaves none"
            )


class _Loaded(NamedTuple):
    pool: Examples  # training and validation, pixels as loaded
    test: Examples
    examples: Examples  # the pool with the labels and images of the transfer set
    train: ImageSet  # not augmented
    splits: dict[str, ImageSet]
