"""Saves the weights with the best validation metric."""

import math
from pathlib import Path
from typing import Any, cast

import lightning as L

from tutelage.checkpoints.weights import read_state, save_network
from tutelage.errors import TutelageError, nearest
from tutelage.runtime.distributed import broadcast, is_main
from tutelage.training.module import SupervisedModule


class BestLostError(TutelageError):
    """Raised when a resumed training has lost its best weights."""


class BestWeights(L.Callback):
    """Writes ``<default_root_dir>/best.safetensors`` when validation reaches a new best; ties keep the earlier epoch.

    Args:
        monitor: the figure to go by, such as ``val/accuracy`` or ``val/nll``.
        mode: ``max`` or ``min``.
    """

    def __init__(self, monitor: str = "val/accuracy", mode: str = "max"):
        if mode not in ("max", "min"):
            raise TutelageError(f"callbacks.best.mode must be 'max' or 'min'; found {mode!r}")
        self.monitor, self.mode = monitor, mode
        self.best: float | None = None
        self.epoch = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """On resume, checks that the best weights so far still exist.

        Raises:
            BestLostError: they are not, or damaged.
        """
        if self.best is not None and (lost := broadcast(self._lost(Path(trainer.default_root_dir)))):
            raise BestLostError(f"its best weights are lost ({lost})")

    @staticmethod
    def _lost(folder: Path) -> str:
        try:
            read_state(folder / "best.safetensors") if is_main() else None
        except TutelageError as error:
            return str(error)
        return ""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the weights if they are the best; an epoch with a metric that is not finite never is."""
        if trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            raise TutelageError(
                f"callbacks.best.monitor: no metric {self.monitor!r} was logged; "
                f"{nearest(self.monitor, trainer.callback_metrics)}"
            )
        figures = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if not all(map(math.isfinite, figures.values())):
            return  # NaN weights always predict class 0, so accuracy alone looks normal
        value = float(trainer.callback_metrics[self.monitor])
        sign = 1.0 if self.mode == "max" else -1.0
        if sign * value > (sign * self.best if self.best is not None else float("-inf")):
            self.best, self.epoch = value, trainer.current_epoch
            learner = cast(SupervisedModule, pl_module)
            path = Path(trainer.default_root_dir) / "best.safetensors"
            save_network(learner.shown.net.net, path, {**learner.about, "epoch": self.epoch})

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value and its epoch."""
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores them."""
        self.best, self.epoch = state_dict["best"], state_dict["epoch"]
