"""Reports the progress of a training to `tutelage status`."""

import time
from typing import Any

import lightning as L

from tutelage.runtime import job
from tutelage.training.callbacks.best import BestWeights


class Heartbeat(L.Callback):
    """Tells :func:`tutelage.runtime.job.job`, which writes a heartbeat every few seconds, where the training is.

    It has no part in the steps: the figures are taken when they are asked for.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Offers the figures."""
        self._began, self._from = time.monotonic(), trainer.global_step
        self._steps = int(trainer.estimated_stepping_batches)
        job.sign_of_life.show(lambda folder: self.figures(trainer, pl_module))

    def figures(self, trainer: L.Trainer, pl_module: Any) -> dict[str, Any]:
        """Returns the present epoch, the estimated time left and the best figure so far."""
        done, seconds = trainer.global_step - self._from, time.monotonic() - self._began
        best = [one.best for one in trainer.callbacks if isinstance(one, BestWeights)]  # type: ignore[attr-defined]
        return {
            "stage": pl_module.about["stage"],
            "epoch": trainer.current_epoch,
            "epochs": trainer.max_epochs,
            "step": trainer.global_step,
            "steps": self._steps,
            "seconds_left": (self._steps - trainer.global_step) * seconds / done if done else None,
            "best": best[0] if best else None,
            "percent": pl_module.task.figure_kinds.main.percent,
        }

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the last figures while evaluation or another stage follows."""
        last = self.figures(trainer, pl_module)
        job.sign_of_life.show(lambda folder: last)
