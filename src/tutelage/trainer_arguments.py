"""Arguments of Lightning's Trainer and its callbacks that would be overridden, or end a training early or late."""

from typing import Any

from hydra.utils import get_object
from lightning.pytorch.callbacks import Callback, Timer
from omegaconf import DictConfig

from tutelage.errors import TutelageError, nearest

# What Tutelage decides itself, and the key that decides it. Null and False are what is done anyway.
_INSTEAD = {
    "logger": "curves are written by the group `logger`: logger=none for none, +logger.mine={_target_: …} for others",
    "callbacks": "callbacks are the group `callbacks`: +callbacks.mine={_target_: …}",
    "enable_checkpointing": "the best weights and the states to go on from are always written: callbacks.best and "
    "callbacks.recovery say how, +callbacks.mine={_target_: lightning.pytorch.callbacks.ModelCheckpoint} adds others",
    "enable_progress_bar": "the bar is callbacks.progress: ~callbacks.progress for none",
    "num_sanity_val_steps": "every network, loss and shape is tried out on a few images before anything is trained",
    "default_root_dir": "a run's folder is hydra.run.dir=…",
    "plugins": "precision is trainer.precision, and ranks and their files are Tutelage's own",
    "use_distributed_sampler": "Tutelage shares each batch out among the ranks by itself",
    "barebones": "a run needs its curves, best weights and states",
    "limit_test_batches": "test figures are always of all examples",
    "limit_predict_batches": "nothing is predicted beside the figures, which are of all examples",
    "max_time": "a training that a clock ends is no whole one, and can't be compared: trainer.max_epochs or "
    "+trainer.max_steps say how long it is; a job that its machine ends (SIGTERM) saves its state and goes on later",
    "fast_dev_run": "it leaves no whole training: for a trial say trainer.max_epochs=1 +trainer.limit_train_batches=2",
}  # fmt: skip
_KEPT = {"num_sanity_val_steps": 0}  # values that are what is done anyway, beside null and False
_NEEDED = ("enable_checkpointing", "enable_progress_bar", "logger")  # of which False asks for something
_FIGURES = ("val/accuracy", "val/nll")  # of every training on validation
_BESIDE_TEACHER = ("val/agreement", "val/kl_teacher")  # of those that are compared with a teacher


def check_trainer(node: DictConfig, path: str) -> None:
    """Refuses arguments that would be overridden, and those that end a training before its end.

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
            raise TutelageError(f"{path}.{name}={value} can't be had: {why}")


def check_callbacks(callbacks: DictConfig, name: str, path: str) -> None:
    """Refuses a clock that ends a training, and figures to watch that no training has.

    Args:
        callbacks: name → config.
        name: of the stage.
        path: their key.

    Raises:
        TutelageError: names the key and the figures that there are.
    """
    kinds: dict[str, Any] = {str(key): get_object(node._target_) for key, node in callbacks.items() if node is not None}
    figures = figures_of(name)
    for key, kind in kinds.items():
        node = callbacks[key]
        if isinstance(kind, type) and issubclass(kind, Timer) and node.get("duration") is not None:
            raise TutelageError(f"{path}.{key}.duration can't be had: {_INSTEAD['max_time']}")
        monitor = node.get("monitor")
        unknown = isinstance(monitor, str) and monitor not in figures and not monitor.startswith("train/")
        if unknown and all(_logs_nothing(one) for one in kinds.values()):
            raise TutelageError(f"{path}.{key}.monitor: no figure {monitor!r}; {nearest(monitor, figures)}")


def figures_of(name: str) -> tuple[str, ...]:
    """The figures on validation that every training of a stage has."""
    return _FIGURES if name in ("teacher", "specialist") else _FIGURES + _BESIDE_TEACHER


def _logs_nothing(kind: Any) -> bool:
    """Whether a callback is Tutelage's or Lightning's: one of a user's own may log a figure that another watches."""
    known = str(getattr(kind, "__module__", "")).split(".")[0] in ("tutelage", "lightning")
    return known and isinstance(kind, type) and issubclass(kind, Callback)
