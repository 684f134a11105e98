"""Loads data once: checks the examples, splits validation off, chooses the transfer set, and refuses what is empty."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from tutelage.data.examples import Examples
from tutelage.data.labels import is_class
from tutelage.data.samplers import Repeatable, Repeated, Sampler
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

Data = Any  # tutelage.data.module.Data, which imports this module
_LEAST = {"batch_size": 1, "eval_batch_size": 1, "num_workers": 0}


class Loaded(NamedTuple):
    """The examples of one :class:`~tutelage.data.module.Data`.

    Attributes:
        pool: training and validation, as loaded.
        test: as loaded.
        examples: the pool with the labels and further examples of the transfer set.
        train: the training set without augmentation.
        splits: ``train`` (augmented if configured), ``val`` and ``test``.
    """

    pool: Examples
    test: Examples
    examples: Examples
    train: Any
    splits: dict[str, Any]


def loaded(data: Data) -> Loaded:
    """Returns the examples of ``data``, loaded, checked and split.

    Raises:
        TutelageError: they contradict the arguments, a split is empty, or no label of it is known.
    """
    pool, test = (data.checked(part, examples) for part, examples in zip(("train", "test"), data.load(), strict=True))
    train_keys, val_keys = data.split(len(pool))
    examples, keys = data.transfer.choose(pool, train_keys, data.input_shape, data.split_seed)
    train = data.as_set(examples, keys)
    own = data.per_epoch(train)
    if isinstance(data.sampler, Repeated) and not isinstance(own, Repeatable):
        raise TutelageError(f"data.sampler: Repeated shows several views of an example; {data.name} has none")
    drawn = len(own) if data.sampler is None else data.sampler.size(own)
    _check_sizes(data, {"train": drawn, "val": len(val_keys), "test": len(test)})
    plain = {
        "train": train,
        "val": replace(train, keys=val_keys),
        "test": data.as_set(test, torch.arange(len(test))),
    }
    for part, found in plain.items():
        if not ((part == "train" and is_class(found.labels)) or data.any_label(found)):
            raise TutelageError(
                f"{data.name}: no label of the {part} split is known, so nothing could be "
                f"{'learned from' if part == 'train' else 'measured on'} its {len(found)} examples; labels of "
                f"{NO_LABEL}, and of data.ignore_index where that is given, are not counted"
            )
    return Loaded(pool, test, examples, train, {**plain, "train": data.for_training(train, examples)})


def outputs(num_classes: int | None, num_outputs: int | None) -> int:
    """Returns the size of the last axis of logits.

    Raises:
        TutelageError: neither is given, both differ, or one is below 1.
    """
    for key, value in (("num_classes", num_classes), ("num_outputs", num_outputs)):
        if value is not None and value < 1:
            raise TutelageError(f"data.{key} must be at least 1; found {value}")
    if num_classes is None and num_outputs is None:
        raise TutelageError("data.num_classes is needed, or data.num_outputs where labels are floats")
    if None not in (num_classes, num_outputs) and num_classes != num_outputs:
        raise TutelageError(f"data.num_outputs={num_outputs}: there are {num_classes} classes (data.num_classes)")
    return num_classes or num_outputs or 0


def check_arguments(data: Data) -> None:
    """Checks the arguments of ``data`` that need no example.

    Raises:
        TutelageError: one is out of range.
    """
    for key, minimum in _LEAST.items():
        if getattr(data, key) < minimum:
            raise TutelageError(f"data.{key} must be at least {minimum}; found {getattr(data, key)}")
    if len(data.class_names) != data.num_outputs:
        what = "classes" if data.num_classes else "outputs"
        raise TutelageError(f"data.class_names has {len(data.class_names)} names for {data.num_outputs} {what}")
    if data.sampler is not None and not isinstance(data.sampler, Sampler):
        raise TutelageError(f"data.sampler: {type(data.sampler).__name__} is none of tutelage.data.samplers")


def _check_sizes(data: Data, sizes: dict[str, int]) -> None:
    for part, size in sizes.items():
        if not size:
            raise TutelageError(f"{data.name}: the {part} split is empty: {sizes}")
    if data.drop_last and sizes["train"] < data.batch_size:
        raise TutelageError(
            f"{data.name}: {sizes['train']} training examples don't fill one batch of {data.batch_size} "
            "and drop_last=true leaves none"
        )
