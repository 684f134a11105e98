"""Saves the weights with the best validation metric."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import lightning as L

from tutelage.checkpoints.weights import read_state, save_network
from tutelage.errors import TutelageError, nearest
from tutelage.runtime.distributed import broadcast, is_main
from tutelage.tasks.base import Task
from tutelage.training.module import SupervisedModule

KEY = "callbacks.best"


class BestLostError(TutelageError):
    """Raised when a resumed training has lost its best weights."""


def monitored(key: str, monitor: str | None, mode: str | None, task: Task) -> tuple[str, str]:
    """Returns the figure that decides which weights are the best, and whether ``max`` or ``min`` of it.

    Args:
        key: of the callback in the config.
        monitor: its name; None or empty: the headline of the task.
        mode: ``max`` or ``min``; None: as the task's figures have it.
        task: of the training.

    Raises:
        TutelageError: the mode of a figure that the task does not know is not given.
    """
    name = monitor or f"val/{task.headline}"
    if (found := mode or task.mode(name)) is None:
        raise TutelageError(f"{key}.mode=max or min is needed for {key}.monitor={name}")
    return name, found


def finite_figure(key: str, trainer: L.Trainer, learner: SupervisedModule, monitor: str) -> float | None:
    """Returns the figure that decides; None where a figure of this validation is not finite.

    NaN weights always predict class 0, so accuracy alone looks normal.

    Raises:
        TutelageError: no such figure was logged.
    """
    if monitor not in trainer.callback_metrics:
        near = nearest(monitor, trainer.callback_metrics)
        raise TutelageError(f"{key}.monitor: no metric {monitor!r} was logged; {near}")
    means = {f"val/{name}" for name in learner.validation.means}
    figures = {name: float(value) for name, value in trainer.callback_metrics.items() if name in means}
    value = float(trainer.callback_metrics[monitor])
    return value if all(map(math.isfinite, (value, *figures.values()))) else None


class BestWeights(L.Callback):
    """Writes ``<default_root_dir>/best.safetensors`` when validation reaches a new best; ties keep the earlier epoch.

    Networks that are trained beside the student are written at the same moment, each into a folder of its own.

    Args:
        monitor: the figure to go by, such as ``val/accuracy`` or ``val/nll``; None: the headline of the task.
        mode: ``max`` or ``min``; None: as the task's figures have it.
    """

    def __init__(self, monitor: str | None = None, mode: str | None = None):
        if mode not in ("max", "min", None):
            raise TutelageError(f"callbacks.best.mode must be 'max' or 'min'; found {mode!r}")
        self.monitor, self.given_mode = monitor or "", mode
        self.best: float | None = None
        self.epoch = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Takes what is not given from the task.

        Raises:
            TutelageError: the mode of a figure that the task does not know is not given.
        """
        self.monitor, self.mode = monitored(KEY, self.monitor, self.given_mode, cast(SupervisedModule, pl_module).task)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """On resume, checks that the best weights so far still exist.

        Raises:
            BestLostError: they are not, or damaged.
        """
        folders = ["", *cast(SupervisedModule, pl_module).trained_beside()]
        if self.best is not None and (lost := broadcast(self._lost(Path(trainer.default_root_dir), folders))):
            raise BestLostError(f"its best weights are lost ({lost})")

    @staticmethod
    def _lost(folder: Path, parts: Iterable[str]) -> str:
        try:
            for part in parts if is_main() else ():
                read_state(folder / part / "best.safetensors")
        except TutelageError as error:
            return str(error)
        return ""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the weights if they are the best; an epoch with a metric that is not finite never is."""
        if trainer.sanity_checking:
            return
        learner = cast(SupervisedModule, pl_module)
        if (value := finite_figure(KEY, trainer, learner, self.monitor)) is None:
            return
        sign = 1.0 if self.mode == "max" else -1.0
        if sign * value > (sign * self.best if self.best is not None else float("-inf")):
            self.best, self.epoch = value, trainer.current_epoch
            folder, epoch = Path(trainer.default_root_dir), {"epoch": self.epoch}
            save_network(learner.written, folder / "best.safetensors", {**learner.about, **epoch})
            for beside, net in learner.trained_beside().items():
                header = {**learner.about_beside(beside), **epoch}
                save_network(net.net, folder / beside / "best.safetensors", header)

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value and its epoch."""
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores them."""
        self.best, self.epoch = state_dict["best"], state_dict["epoch"]
