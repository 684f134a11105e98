"""Stops a training whose loss is not finite."""

import math
from typing import Any

import lightning as L

from tutelage.errors import TutelageError
from tutelage.runtime import devices
from tutelage.training.fast_loop import Quiet


class FiniteLoss(Quiet):
    """Raises at the first loss that is NaN or infinite and names the batch.

    On a CPU it checks every step; on other devices, where reading the loss waits for the device, every
    ``log_every_n_steps`` and the last step of an epoch. A NaN stays in the weights, so none is missed.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Checks the loss.

        Raises:
            TutelageError: it is not finite; names epoch, batch, keys and which inputs are not finite.
        """
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        due = (batch_idx + 1) % every == 0 or trainer.is_last_batch
        if (due or not devices.waits(pl_module.device)) and not math.isfinite(outputs["loss"].item()):
            bad = batch["key"][~batch["input"].flatten(1).isfinite().all(1)].tolist()
            cause = (
                f"inputs that are not finite: examples {bad[:5]}"
                if bad
                else "its inputs are finite, so the training diverged (try a smaller optimizer.lr or "
                f"trainer.gradient_clip_val); examples {batch['key'].tolist()[:8]} …"
            )
            raise TutelageError(
                f"{_training(pl_module)}the loss is {outputs['loss'].item()} at epoch {trainer.current_epoch}, "
                f"batch {batch_idx} (step {trainer.global_step}); {cause}"
            )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Checks the validation metrics: the last step of an epoch may have broken the weights after its own loss.

        Raises:
            TutelageError: it is not finite.
        """
        for name, value in trainer.callback_metrics.items():
            if name.startswith("val/") and not math.isfinite(value):
                where = f"epoch {trainer.current_epoch} (step {trainer.global_step})"
                raise TutelageError(
                    f"{_training(pl_module)}{name} is {float(value)} after {where}: the weights are no longer finite"
                )


def _training(module: L.LightningModule) -> str:
    """Returns which of a job's trainings this is, as the start of a sentence; empty where it is not known."""
    stage = getattr(module, "about", {}).get("stage")
    return f"{stage}: " if stage else ""
