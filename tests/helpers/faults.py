"""Callbacks that do harm at a chosen moment, once: ``+callbacks.harm={_target_: faults.KillAt, …}``."""

import os
import signal
from pathlib import Path

import lightning as L
import torch

from tutelage.training.fast_loop import Quiet


class StruckError(Exception):
    """Raised by :class:`CrashAt`."""


class _Once(Quiet):
    """Strikes after one step of one stage, on one rank; the marker file keeps it from striking twice."""

    def __init__(self, stage: str, step: int, marker: str, rank: int = 0):
        self.stage, self.step, self.marker, self.rank = stage, step, Path(marker), rank

    def strike(self, trainer: L.Trainer) -> None:
        raise NotImplementedError

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        here = pl_module.about["stage"] == self.stage and trainer.global_step == self.step
        if here and not self.marker.exists() and trainer.global_rank == self.rank:
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


class InterruptAt(_Once):
    """The process gets a SIGINT, as from Ctrl-C."""

    def strike(self, trainer: L.Trainer) -> None:
        os.kill(os.getpid(), signal.SIGINT)


class InterruptGroupAt(_Once):
    """Every process of this one's group gets a SIGINT, as from Ctrl-C in a terminal."""

    def strike(self, trainer: L.Trainer) -> None:
        os.killpg(0, signal.SIGINT)


class CrashAt(_Once):
    """An exception, as from a bug: for tests in one process."""

    def strike(self, trainer: L.Trainer) -> None:
        raise StruckError(f"{self.stage} at step {self.step}")


class PoisonWeightsAt(_Once):
    """One of the student's weights becomes NaN."""

    def strike(self, trainer: L.Trainer) -> None:
        with torch.no_grad():
            next(trainer.lightning_module.student.parameters()).view(-1)[0] = torch.nan


class PoisonInputAt(_Once):
    """One pixel of the fourth example of a batch becomes NaN."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if pl_module.about["stage"] == self.stage and trainer.global_step == self.step:
            batch["input"][3].view(-1)[0] = torch.nan

    def strike(self, trainer: L.Trainer) -> None:
        raise AssertionError(f"a step with a NaN was not noticed: {self.stage}, step {self.step}")
