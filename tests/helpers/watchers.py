"""Callbacks that look, or meddle without being meant to do harm."""

import json
import time
from pathlib import Path

import lightning as L

from tutelage.training.fast_loop import Quiet


class ToggleTrain(Quiet):
    """Calls ``train()`` on the module and on every source, the frozen ones too, around every batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        pl_module.train()
        for source in pl_module.sources().values():
            source.train()


class Slow(Quiet):
    """Waits before every batch of one stage, so that a signal finds it at work; ``marker`` appears when it is."""

    def __init__(self, stage: str, marker: str, seconds: float = 0.2):
        self.stage, self.marker, self.seconds = stage, Path(marker), seconds

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if pl_module.about["stage"] == self.stage and not (self.marker.exists() and trainer.global_step > 4):
            self.marker.touch()
            time.sleep(self.seconds)


class WriteRank(L.Callback):
    """Every rank of every job says what it trains with: one line a stage in ``<folder>/<rank>.jsonl``."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_train_start(self, trainer, pl_module) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        soft = getattr(pl_module.objective.terms, "soft", None)
        said = {
            "stage": pl_module.about["stage"],
            "seed": pl_module.seed,
            "temperature": None if soft is None else float(soft.loss.temperature),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "ranks": trainer.world_size,
            "folder": trainer.default_root_dir,
        }
        with (self.folder / f"{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(said) + "\n")
