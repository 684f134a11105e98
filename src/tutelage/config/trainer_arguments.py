"""Checks arguments of Lightning's Trainer and callbacks that would be overridden or change a training's length."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from hydra.utils import get_object, instantiate
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    Checkpoint,
    DeviceStatsMonitor,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelPruning,
    ThroughputMonitor,
    Timer,
)
from omegaconf import DictConfig

from tutelage.errors import TutelageError, nearest
from tutelage.tasks.base import Task
from tutelage.training import loggers
from tutelage.training.schedule_length import batches_a_step, steps_and_batches

# Arguments that Tutelage sets itself, and the key to use instead. Null and False agree with it.
_INSTEAD = {
    "logger": "curves are written by the group `logger`: logger=none for none, +logger.mine={_target_: …} for others",
    "callbacks": "callbacks are the group `callbacks`: +callbacks.mine={_target_: …}",
    "enable_checkpointing": "the best weights and the states to resume from are always written: see callbacks.best and "
        "callbacks.recovery; +callbacks.mine={_target_: lightning.pytorch.callbacks.ModelCheckpoint} adds others",
    "enable_progress_bar": "the progress bar is callbacks.progress; ~callbacks.progress removes it",
    "num_sanity_val_steps": "every network and loss is checked in a dry run on a few images before training",
    "default_root_dir": "a run's folder is hydra.run.dir=…",
    "plugins": "use trainer.precision; Tutelage handles ranks and checkpoint files itself",
    "use_distributed_sampler": "Tutelage distributes each batch among the ranks itself",
    "barebones": "a run needs its curves, best weights and states",
    "limit_test_batches": "the test metrics are always of all examples",
    "limit_predict_batches": "predictions are always made for all examples",
    "max_time": "trainings that a time limit ends are not comparable: set trainer.max_epochs or +trainer.max_steps; a "
        "job that receives SIGTERM saves its state and can be resumed",
    "fast_dev_run": "it would leave an incomplete training; for a trial use trainer.max_epochs=1 "
        "+trainer.limit_train_batches=2",
    "overfit_batches": "it would replace the order of examples; use +trainer.limit_train_batches",
}  # fmt: skip
_KEPT = {"num_sanity_val_steps": 0}  # values that agree with Tutelage, beside null and False
_NEEDED = ("enable_checkpointing", "enable_progress_bar", "logger")  # for which False is a choice, too
# Lightning's callbacks that would make the trainings incomparable.
_REFUSED = {
    LearningRateFinder: "teacher, control and student would each get a different learning rate; sweep over it: -m "
    "optimizer.lr=0.001,0.003,0.01",
    BatchSizeFinder: "the batch size would differ between the trainings; set data.batch_size=…",
    ModelPruning: "it renames weights during training, so that saved weights and states would no longer fit the "
    "network; prune the exported weights",
}
_WRITE_CURVES = (DeviceStatsMonitor, LearningRateMonitor, ThroughputMonitor)


def check_trainer(node: DictConfig, path: str) -> None:
    """Refuses arguments that would be overridden, and those that end a training early.

    Args:
        node: the config of a Trainer.
        path: its key.

    Raises:
        TutelageError: names the argument and what to use instead.
    """
    for name, why in _INSTEAD.items():
        value = node.get(name)
        asked = value is not None and not (value is False and name not in _NEEDED)
        if asked and not (name in _KEPT and value == _KEPT[name]):
            raise TutelageError(f"{path}.{name}={value} is not supported: {why}")


def check_callbacks(stage: DictConfig, name: str, path: str) -> None:
    """Refuses unsupported callbacks, time limits, and monitored metrics that no training logs.

    Args:
        stage: the config as this training sees it.
        name: of the stage.
        path: the key of its callbacks.

    Raises:
        TutelageError: names the key and the available metrics.
    """
    nodes = {str(key): node for key, node in stage.callbacks.items() if node is not None}
    kinds: dict[str, Any] = {key: get_object(node._target_) for key, node in nodes.items()}
    for key, kind in kinds.items():
        if isinstance(kind, type):
            _check_kind(kind, nodes[key], f"{path}.{key}", stage)
    figures = figures_of(name, instantiate(stage.task))
    trained = ("train/loss", "train/learning_rate", *(f"train/{term}" for term in stage.loss.terms))
    for key, node in nodes.items():
        monitor = node.get("monitor")
        unknown = isinstance(monitor, str) and monitor not in (*figures, *trained)
        if unknown and all(_logs_nothing(one) for one in kinds.values()):
            known = trained if monitor.startswith("train/") else figures
            raise TutelageError(
                f"{path}.{key}.monitor: the {name} logs no metric {monitor!r}; {nearest(monitor, known)}"
            )


def _check_kind(kind: type, node: DictConfig, path: str, stage: DictConfig) -> None:
    if issubclass(kind, Timer) and node.get("duration") is not None:
        raise TutelageError(f"{path}.duration is not supported: {_INSTEAD['max_time']}")
    for refused, why in _REFUSED.items():
        if issubclass(kind, refused):
            raise TutelageError(f"{path}: {kind.__name__} is not supported: {why}")
    if issubclass(kind, GradientAccumulationScheduler) and stage.scheduler.interval == "step":
        raise TutelageError(
            f"{path}: scheduler.interval=step needs a known number of steps: use scheduler.interval=epoch, or "
            "+trainer.accumulate_grad_batches=… instead"
        )
    if issubclass(kind, _WRITE_CURVES) and not loggers.nodes(stage):
        raise TutelageError(f"{path}: {kind.__name__} needs a logger: logger=tensorboard or csv")
    place = PurePath(str(node.get("dirpath") or "."))
    if issubclass(kind, Checkpoint) and (place.is_absolute() or ".." in place.parts):
        raise TutelageError(
            f"{path}.dirpath must be relative, within each training's own folder of weights; found {node.dirpath!r}"
        )


def accumulation(callbacks: Mapping[str, Any]) -> dict[int, int] | None:
    """Returns epoch → batches a step of a ``GradientAccumulationScheduler`` among callbacks' configs; None without."""
    for node in callbacks.values():
        kind = None if node is None else get_object(node["_target_"])
        if isinstance(kind, type) and issubclass(kind, GradientAccumulationScheduler) and node.get("scheduling"):
            return {int(epoch): int(factor) for epoch, factor in node["scheduling"].items()}
    return None


def check_lengths(
    trainer: Mapping[str, Any], name: str, batches: int, val_batches: int, callbacks: Mapping[str, Any] | None = None
) -> None:
    """Refuses numbers of batches for which nothing would be trained or validated.

    Args:
        trainer: the config of a Trainer.
        name: of the training.
        batches: of an epoch.
        val_batches: of a validation.
        callbacks: their configs, one of which may accumulate batches.

    Raises:
        TutelageError: names the argument, its value and how many batches there are.
    """
    batches = _limited(trainer, "limit_train_batches", name, batches)
    _limited(trainer, "limit_val_batches", name, val_batches)
    every, epochs = trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch", 1)
    whole = batches * int(trainer["max_epochs"])
    if isinstance(every, int | float) and not isinstance(every, bool):
        most = whole if epochs is None else batches
        if every <= 0 or every > (most if isinstance(every, int) else 1.0):
            per = "training" if epochs is None else "epoch"
            raise TutelageError(
                f"trainer.val_check_interval must be from 1 to {most}, the batches of the {name}'s {per}, or a share "
                f"of them as 0.5; found {every}"
            )
    if epochs is not None and not 1 <= epochs <= trainer["max_epochs"]:
        raise TutelageError(
            f"trainer.check_val_every_n_epoch={epochs}: the {name} trains for {trainer['max_epochs']} epochs and "
            "would never be validated"
        )
    _check_steps(trainer, name, batches, accumulation(callbacks or {}))


def _check_steps(trainer: Mapping[str, Any], name: str, batches: int, accumulated: Mapping[int, int] | None) -> None:
    """Refuses a number of steps that ends a training before its first validation."""
    most = trainer.get("max_steps")
    if most is None or most == -1:
        return
    every, epochs = trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch", 1)
    if isinstance(every, float):
        every = max(1, int(batches * every))
    if not isinstance(every, int):  # a duration, or the end of an epoch
        every = batches if every is None else 0
    before = ((epochs or 1) - 1) * batches
    in_epochs, rest = divmod(before + every, batches)
    whole = {"max_epochs": in_epochs, "accumulate_grad_batches": trainer.get("accumulate_grad_batches")}
    steps, _ = steps_and_batches(whole, batches, accumulated)
    least = max(1, steps + rest // batches_a_step(trainer, accumulated, in_epochs))
    if most < least:
        raise TutelageError(
            f"trainer.max_steps={most}: the {name} is validated for the first time after {least} optimizer steps, and "
            "without a validation no weights are the best"
        )


def _limited(trainer: Mapping[str, Any], key: str, name: str, batches: int) -> int:
    limit = trainer.get(key)
    if limit is None:
        return batches
    left = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    if left < 1 or (isinstance(limit, float) and limit > 1):
        raise TutelageError(
            f"trainer.{key} must be a number of batches, at least 1, or a share of them up to 1.0; found {limit}, "
            f"for the {name}'s {batches} batches {left}"
        )
    return left


def figures_of(name: str, task: Task) -> tuple[str, ...]:
    """Returns the names of the validation metrics that the training of a stage logs."""
    beside_teacher = name not in ("teacher", "specialist")
    return tuple(f"val/{figure}" for figure in task.on_validation(beside_teacher))


def _logs_nothing(kind: Any) -> bool:
    """Checks whether a callback is Tutelage's or Lightning's; a user's own may log a metric that another monitors."""
    known = str(getattr(kind, "__module__", "")).split(".")[0] in ("tutelage", "lightning")
    return known and isinstance(kind, type) and issubclass(kind, Callback)
