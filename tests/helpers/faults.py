"""Callbacks that do harm at a chosen moment, once; put into a run by ``+callbacks.harm={_target_: faults.KillAt, …}``."""

import os
import signal
from pathlib import Path

import lightning as L


class _Once(L.Callback):
    """Strikes at one step of one stage; the marker file keeps it from striking again when the run goes on."""

    def __init__(self, stage: str, step: int, marker: str):
        self.stage, self.step, self.marker = stage, step, Path(marker)

    def strike(self, trainer: L.Trainer) -> None:
        raise NotImplementedError

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        here = pl_module.about["stage"] == self.stage and trainer.global_step == self.step
        if here and not self.marker.exists() and trainer.is_global_zero:
            self.marker.touch()
            self.strike(trainer)


class KillAt(_Once):
    """The process dies at once, as by the kernel's out-of-memory killer."""

    def strike(self, trainer: L.Trainer) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class TerminateAt(_Once):
    """The process gets a SIGTERM, as from a cluster that preempts."""

    def strike(self, trainer: L.Trainer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
