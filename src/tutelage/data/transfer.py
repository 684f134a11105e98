"""The transfer set: the training set with fewer classes, fewer labels or additional images."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tutelage import seeding
from tutelage.data.examples import Examples, ImageSet, Joinable, joined
from tutelage.data.labels import has_label, is_class, no_labels, require_class
from tutelage.data.made import read_made
from tutelage.errors import TutelageError


@runtime_checkable
class Unlabelled(Protocol):
    """Images that never had a label (:mod:`tutelage.data.unlabelled`)."""

    def load(self, shape: tuple[int, ...]) -> Examples:
        """Returns all images as (C, H, W) = ``shape``; their labels are not read."""


class Transfer:
    """Makes the transfer set of a training set; by default it is the training set itself.

    Keeps the training examples of ``classes``, of these a ``long_tail``, then the labels of ``labelled`` of these, then
    appends the images of ``unlabelled``. Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015,
    sections 2 and 3.

    Args:
        num_classes: number of classes; None without classes.
        labelled: number (below 1: fraction) of examples that keep their label, stratified by class if
            an example has one.
        classes: the classes to keep.
        unlabelled: the images to append.
        repeat_labelled: how often each labelled example occurs in an epoch, so that every batch has some. The
            copies in an epoch are the same view, as augmentation is a function of key and epoch.
        focus: classes of half of an epoch's examples, to train a specialist (section 5): all of
            them, and the same number of others, drawn once and repeated if there are too few.
        long_tail: fraction of its examples that the last class keeps, with fewer and fewer from the first one on.
        made: the folder of an artifact of ``tutelage condense``, whose images are the whole transfer set.

    Raises:
        TutelageError: an argument is out of range.
    """

    def __init__(
        self,
        num_classes: int | None,
        labelled: float | None = None,
        classes: Iterable[int] | None = None,
        unlabelled: Iterable[Unlabelled] | None = None,
        repeat_labelled: int = 1,
        focus: Iterable[int] | None = None,
        long_tail: float | None = None,
        made: str | None = None,
    ):
        self.made = None if made is None else Path(made)
        self.num_classes, self.long_tail = num_classes, long_tail
        self.labelled, self.repeat_labelled = labelled, repeat_labelled
        self.classes, self.focus = (None if chosen is None else list(chosen) for chosen in (classes, focus))
        self.unlabelled = list(unlabelled or [])
        self._check(num_classes)
        self._check_made()

    @property
    def is_whole(self) -> bool:
        """Checks whether the transfer set is the training set."""
        chosen = (self.labelled, self.classes, self.focus, self.long_tail)
        return chosen == (None,) * 4 and self.made is None and not self.unlabelled and self.repeat_labelled == 1

    def choose(self, pool: Examples, keys: Tensor, shape: tuple[int, ...], seed: int) -> tuple[Examples, Tensor]:
        """Returns the examples and the keys [n] of the training examples.

        Args:
            pool: the original training set, validation included.
            keys: keys of its training examples.
            shape: (C, H, W).
            seed: ``split_seed``.

        Returns:
            ``pool`` with labels left out and images appended: old keys mean what they meant.

        Raises:
            TutelageError: a key needs other examples than these.
        """
        if self.made is not None:
            return self._with_made(pool, shape)
        for key in ("classes", "focus", "long_tail"):
            if getattr(self, key) is not None:
                require_class(f"data.{key}", pool.labels)
        if self.classes is not None:
            keys = keys[torch.isin(pool.labels[keys], torch.tensor(self.classes))]
        if self.long_tail is not None:
            keys = keys[thinned(pool.labels[keys], self.num_classes or 0, self.long_tail, seed)]
        if self.labelled is not None:
            own = pool.labels[keys]
            kept = stratified(own if is_class(own) else torch.zeros(len(own), dtype=torch.long), self.labelled, seed)
            labels = pool.labels.clone()
            labels[keys] = no_labels(len(keys), pool.labels)
            labels[keys[kept]] = own[kept]
            pool = replace(pool, labels=labels)
        if not self.unlabelled:
            return pool, keys
        loaded = [others.load(shape) for others in self.unlabelled]
        whole = joined([pool, *(replace(more, labels=no_labels(len(more), pool.labels)) for more in loaded)])
        return whole, torch.cat([keys, torch.arange(len(pool), len(whole))])

    def _with_made(self, pool: Examples, shape: tuple[int, ...]) -> tuple[Examples, Tensor]:
        assert self.made is not None
        if isinstance(pool.pixels, Joinable) or len(shape) != 3:
            raise TutelageError("data.made takes the place of training images; these data have others than images")
        found = read_made(self.made, shape, self.num_classes)
        whole = joined([replace(pool, labels=pool.labels.long()), found])
        return whole, torch.arange(len(pool), len(whole))

    def epoch(self, dataset: ImageSet, seed: int) -> ImageSet:
        """Returns ``dataset`` for an epoch: half of it of ``focus``, labelled examples repeated as configured.

        Args:
            dataset: has every example once.
            seed: ``split_seed``.

        Raises:
            TutelageError: no example is of the focus, or every one is.
        """
        if self.focus is not None:
            dataset = replace(dataset, keys=dataset.keys[focused(dataset.labels, self.focus, seed)])
        if self.repeat_labelled == 1:
            return dataset
        times = torch.where(has_label(dataset.labels), self.repeat_labelled, 1)
        return replace(dataset, keys=dataset.keys.repeat_interleave(times))

    def _check_made(self) -> None:
        others = {"labelled": self.labelled, "classes": self.classes, "long_tail": self.long_tail,
                  "focus": self.focus, "unlabelled": self.unlabelled or None}  # fmt: skip
        if self.made is not None and (beside := [key for key, value in others.items() if value is not None]):
            raise TutelageError(f"data.made is the whole transfer set: it can't be combined with data.{beside[0]}")

    def _check(self, num_classes: int | None) -> None:
        size = self.labelled
        if size is not None and (isinstance(size, bool) or not isinstance(size, int | float) or not size > 0):
            raise TutelageError(f"data.labelled must be a number above 0, or null for all; found {size!r}")
        if self.long_tail is not None and not 0 < self.long_tail <= 1:
            raise TutelageError(f"data.long_tail must be above 0 and at most 1, or null; found {self.long_tail}")
        known = set(range(num_classes or 0))
        for key, chosen in (("classes", self.classes), ("focus", self.focus)):
            if chosen is not None and num_classes is None:
                raise TutelageError(f"data.{key} needs labels that are one class an example; these are floats")
            if chosen is not None and (not chosen or not known.issuperset(chosen) or len({*chosen}) < len(chosen)):
                raise TutelageError(f"data.{key} must be some of 0 to {len(known) - 1}, each once; found {chosen}")
        for images in self.unlabelled:
            if not isinstance(images, Unlabelled):
                raise TutelageError(
                    f"data.unlabelled: {type(images).__name__} is no source of images (tutelage.data.unlabelled)"
                )
        if not isinstance(self.repeat_labelled, int) or self.repeat_labelled < 1:
            raise TutelageError(
                f"data.repeat_labelled must be a whole number of at least 1; found {self.repeat_labelled}"
            )


def focused(labels: Tensor, classes: list[int], seed: int) -> Tensor:
    """Returns all examples of ``classes`` and the same number of others, drawn as a function of ``seed``.

    Args:
        labels: [N] int64; unlabelled examples count as others.
        classes: classes of the first half.
        seed: ``split_seed``.

    Returns:
        Indices into ``labels``; if there are fewer others than examples of ``classes`` they are repeated, as
        often as each other or once more.

    Raises:
        TutelageError: one of the halves is empty.
    """
    first = torch.isin(labels, torch.tensor(classes))
    special, others = first.nonzero()[:, 0], (~first).nonzero()[:, 0]
    if not len(special) or not len(others):
        raise TutelageError(
            f"data.focus={classes}: {len(special)} training examples are of these classes and {len(others)} of others; "
            "both are needed"
        )
    drawn = others[torch.randperm(len(others), generator=seeding.generator(seed, "focus"))]
    return torch.cat([special, drawn.repeat(-(-len(special) // len(others)))[: len(special)]])


def thinned(labels: Tensor, classes: int, last: float, seed: int) -> Tensor:
    """Draws a long tail as a function of ``seed``: class c of C keeps ``last^(c/(C − 1))`` of its examples.

    Args:
        labels: [N] int64, in [0, C).
        classes: C.
        last: fraction that class C − 1 keeps, in (0, 1].
        seed: ``split_seed``.

    Returns:
        Indices into ``labels``, in ascending order; of each class at least one, if it has any.

    Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", 2019, arXiv:1906.07413, whose
    "exp" imbalance it is.
    """
    order = torch.randperm(len(labels), generator=seeding.generator(seed, "long_tail"))
    kept = []
    for c in range(classes):
        own = order[labels[order] == c]
        fraction = last ** (c / max(classes - 1, 1))
        kept.append(own[: max(1, round(len(own) * fraction))])
    return torch.cat(kept).sort().values


def stratified(labels: Tensor, size: float, seed: int) -> Tensor:
    """Draws examples, stratified by class, as a function of ``seed``.

    A class of n_c of all N examples gets n_c · size / N, rounded down; the remaining ones go one by one to the
    classes with the largest remainders, at ties to the lower label.

    Args:
        labels: [N] int64, at least 0.
        size: number (below 1: fraction) of examples to draw.
        seed: ``split_seed``.

    Returns:
        Indices into ``labels``, in ascending order.

    Raises:
        TutelageError: ``size`` draws none or more than there are, or is not an integer.
    """
    total = len(labels)
    drawn = size if size >= 1 else round(size * total, 0)
    if not (0 < drawn <= total and float(drawn).is_integer()):
        raise TutelageError(
            f"data.labelled={size} of {total} training examples: expected a whole number from 1 to {total} or a "
            "fraction below 1 that comes to at least one"
        )
    count = labels.bincount()
    quota, rest = count * int(drawn) // total, count * int(drawn) % total
    quota[rest.argsort(descending=True, stable=True)[: int(drawn) - int(quota.sum())]] += 1
    order = torch.randperm(total, generator=seeding.generator(seed, "labelled"))
    by_class = order[labels[order].argsort(stable=True)]
    place = torch.arange(total) - (count.cumsum(0) - count).repeat_interleave(count)  # within its class
    return by_class[place < quota.repeat_interleave(count)].sort().values
