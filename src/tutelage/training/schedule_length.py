"""Computes a training's length in steps of its learning-rate schedule; refuses schedules that do not fit."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tutelage.errors import TutelageError, nearest
from tutelage.tasks.base import Task

_LENGTHS = ("T_max", "total_steps", "total_iters")  # arguments of torch's schedules that are lengths
_EPOCH = "steps_per_epoch"  # and one that is the length of an epoch


def length(interval: str, trainer: Mapping[str, Any], batches: int) -> int:
    """Returns the length of a training in epochs or in optimizer steps.

    Args:
        interval: ``epoch`` or ``step``.
        trainer: as for :func:`steps_and_batches`.
        batches: of an epoch.
    """
    return int(trainer["max_epochs"]) if interval == "epoch" else steps_and_batches(trainer, batches)[0]


def epoch_length(interval: str, trainer: Mapping[str, Any], batches: int) -> int:
    """Returns the length of a whole epoch, of a training without a schedule of accumulation; arguments as above."""
    return length(interval, {**trainer, "max_epochs": 1, "max_steps": None}, batches)


def steps_and_batches(
    trainer: Mapping[str, Any], batches: int, accumulation: Mapping[int, int] | None = None
) -> tuple[int, int]:
    """Returns the number of optimizer steps of a training, and of the batches that it trains on.

    Args:
        trainer: ``max_epochs`` and, where they are set, ``max_steps``, ``limit_train_batches`` (a number, or a fraction
            as a float) and ``accumulate_grad_batches`` of the Trainer.
        batches: of an epoch.
        accumulation: epoch → batches a step from then on, in place of ``accumulate_grad_batches``.
    """
    limit, most = trainer.get("limit_train_batches"), trainer.get("max_steps")
    if limit is not None:
        batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    steps = seen = 0
    for epoch in range(int(trainer["max_epochs"])):
        factor = batches_a_step(trainer, accumulation, epoch)
        own = math.ceil(batches / factor)
        if most is not None and 0 <= most < steps + own:
            return most, seen + min(batches, (most - steps) * factor)
        steps, seen = steps + own, seen + batches
    return steps, seen


def batches_a_step(trainer: Mapping[str, Any], accumulation: Mapping[int, int] | None, epoch: int) -> int:
    """Returns how many batches an optimizer step of an epoch accumulates; arguments as above."""
    if accumulation is None:
        return int(trainer.get("accumulate_grad_batches") or 1)
    begun = [first for first in accumulation if first <= epoch]
    return accumulation[max(begun)] if begun else 1


def follows_length(schedule: Mapping[str, Any] | None) -> str | None:
    """Returns the argument of a schedule's config that is filled with the training's length; None if there is none."""
    return next((name for name in _LENGTHS if name in (schedule or {}) and schedule[name] is None), None)  # type: ignore[index]


def filled(schedule: Callable[..., Any], whole: Callable[[], int], epoch: Callable[[], int]) -> Callable[..., Any]:
    """Returns the schedule with lengths in every argument for one that its config leaves null.

    Args:
        schedule: optimizer → schedule.
        whole: returns the length of the training.
        epoch: returns that of an epoch.
    """
    if not isinstance(schedule, partial):
        return schedule
    empty = {name for name, given in schedule.keywords.items() if given is None}
    lengths = {name: whole() for name in _LENGTHS if name in empty}
    lengths |= {_EPOCH: epoch()} if _EPOCH in empty else {}
    return partial(schedule, **lengths) if lengths else schedule


def watching(scheduler: DictConfig, schedule: Any, task: Task) -> tuple[Any, str | None]:
    """Returns a schedule with the mode of the figure that it watches, and this figure; None where it watches none.

    Args:
        scheduler: its config: ``monitor`` null stands for the task's headline.
        schedule: function from an optimizer to a schedule.
        task: says which values of a figure are better, if the config gives no mode.
    """
    if not _watches(schedule):
        return schedule, scheduler.get("monitor")
    monitor = scheduler.get("monitor") or f"val/{task.headline}"
    given = schedule if isinstance(schedule, partial) else partial(schedule)
    if given.keywords.get("mode") is None:
        schedule = partial(given.func, *given.args, **{**given.keywords, "mode": task.mode(monitor) or "min"})
    return schedule, monitor


def _watches(schedule: Any) -> bool:
    kind = getattr(schedule, "func", schedule)
    return isinstance(kind, type) and issubclass(kind, ReduceLROnPlateau)


def check_kind(scheduler: DictConfig, schedule: Any, monitor: str | None, figures: tuple[str, ...], task: Task) -> None:
    """Checks that a schedule that watches a figure has one, and that others have none.

    Args:
        scheduler: its config.
        schedule: of :func:`watching`.
        monitor: of :func:`watching`.
        figures: that a training logs.
        task: of the training.

    Raises:
        TutelageError: names the key.
    """
    watches = _watches(schedule)
    if watches and monitor not in figures:
        raise TutelageError(f"scheduler.monitor: ReduceLROnPlateau needs a metric; {nearest(str(monitor), figures)}")
    if watches and scheduler.interval != "epoch":
        raise TutelageError(
            "scheduler.interval must be epoch with ReduceLROnPlateau, as metrics are logged once an epoch"
        )
    mode = (getattr(schedule, "keywords", None) or {}).get("mode")
    if watches and (better := task.mode(str(monitor))) not in (None, mode):
        raise TutelageError(
            f"scheduler.scheduler.mode={mode}: the rate would fall while {monitor} gets better; use mode={better}"
        )
    if monitor is not None and not watches:
        raise TutelageError(f"scheduler.monitor={monitor}: only ReduceLROnPlateau uses a metric")


def check_length(made: Any, scheduler: DictConfig, whole: int, epochs: int, name: str) -> None:
    """Checks that a schedule ends with its training: neither before nor after it.

    Args:
        made: the schedule of an optimizer.
        scheduler: its config.
        whole: the length of the training in the schedule's steps.
        epochs: the same in epochs.
        name: of the training.

    Raises:
        TutelageError: names the argument, what it is and what the training has.
    """
    node, unit = scheduler.scheduler, f"{scheduler.interval}s"
    has = f"the {name}'s training has {whole} {unit} (scheduler.interval={scheduler.interval})"
    if late := [one for one in node.get("milestones") or () if one >= whole]:
        raise TutelageError(f"scheduler.scheduler.milestones: {late[0]} is never reached: {has}; leave it out")
    if node.get("T_max") == epochs < whole:
        raise TutelageError(
            f"scheduler.scheduler.T_max={epochs} counts epochs, but {has}; null means the whole training"
        )
    total = getattr(made, "total_steps", None) or node.get("total_steps")
    if total is not None and total < whole:
        raise TutelageError(f"scheduler.scheduler: it ends after {total} steps, before the training: {has}")


def check_keeps_rates(made: Any, optimizer: torch.optim.Optimizer) -> None:
    """Checks that a schedule multiplies the learning rates of parameter groups, instead of giving all the same.

    Args:
        made: the schedule of ``optimizer``, or None.
        optimizer: of two groups with different rates.

    Raises:
        TutelageError: names the schedule.
    """
    first, second = (group.get("initial_lr", group["lr"]) for group in optimizer.param_groups)
    if made is not None and first == second:
        raise TutelageError(
            f"scheduler.scheduler: {type(made).__name__} gives every group of parameters the same learning rate, which "
            "undoes optimizer.layer_decay and optimizer.groups; choose another schedule"
        )
