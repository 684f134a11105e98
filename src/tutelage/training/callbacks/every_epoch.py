"""The weights after each epoch."""

from pathlib import Path
from typing import cast

import lightning as L

from tutelage.checkpoints.weights import save_network
from tutelage.training.module import SupervisedModule


class EveryEpoch(L.Callback):
    """Writes ``<default_root_dir>/epochs/<epoch>.safetensors``, from 0: any may teach (``stages.teacher.weights``)."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves; a resumed run writes its epoch again, with the same content."""
        learner, epoch = cast(SupervisedModule, pl_module), trainer.current_epoch
        path = Path(trainer.default_root_dir) / "epochs" / f"{epoch}.safetensors"
        save_network(learner.written, path, {**learner.about, "epoch": epoch})
