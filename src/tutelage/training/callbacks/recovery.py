"""Saves the training state, to resume after a crash, a kill or a preemption."""

import hashlib
import io
import logging
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from tutelage.compat.lightning import move_to_next_epoch, take_back_logging_step
from tutelage.errors import TutelageError
from tutelage.runtime.files import write_atomically
from tutelage.runtime.signals import asked_to_stop, note_sigterm
from tutelage.training.fast_loop import Quiet

log = logging.getLogger(__name__)


class Recovery(Quiet):
    """Saves the whole training state before a batch, into ``<default_root_dir>/states``.

    A state is taken in ``on_train_batch_start``: the step before it is complete (optimizer, schedule, moving averages,
    validation) and nothing of the next has begun, so a resumed run goes through the same states to the same bits.

    Args:
        every_n_steps: save before every n-th optimizer step; 0: never by steps.
        every_n_seconds: save when this much time has passed since the last; 0: never by time.
        keep: how many of the newest stay, at least 1.
        extendable: whether the last state of a job's finished student stays, to train it longer later.

    Raises:
        TutelageError: ``keep`` is below 1.
    """

    def __init__(self, every_n_steps: int = 0, every_n_seconds: float = 60.0, keep: int = 2, extendable: bool = True):
        if keep < 1:
            raise TutelageError(f"callbacks.recovery.keep must be at least 1; found {keep}")
        self.every_n_steps, self.every_n_seconds, self.keep = every_n_steps, every_n_seconds, keep
        self.extendable = extendable
        self._saved_at, self._saved_step = 0.0, -1
        self._started: float | None = None  # never, where the state to go on from is that of the end
        self._seconds_before = 0.0
        self._saves = self._ended = False  # a state; a user's own callback may save checkpoints, too

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock, and takes SIGTERM over from Lightning, which would stop without saving."""
        note_sigterm()
        self._started = self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step

    @property
    def seconds(self) -> float:
        """Returns the training time so far in seconds, over all attempts."""
        return self._seconds_before + (0.0 if self._started is None else time.monotonic() - self._started)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Saves if due; after a SIGTERM saves and stops.

        Raises:
            SIGTERMException: the process was asked to stop; the state is saved.
        """
        if batch_idx % trainer.accumulate_grad_batches:
            return  # gradients that wait for their step are in no checkpoint
        if self._must_stop(trainer):
            self.save(trainer)
            raise SIGTERMException
        if self._is_due(trainer):
            self.save(trainer)

    @staticmethod
    def _must_stop(trainer: L.Trainer) -> bool:
        if trainer.world_size == 1:
            return asked_to_stop()
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # only one rank may have heard: compare notes
        return trainer.global_step % every == 0 and trainer.strategy.reduce_boolean_decision(asked_to_stop(), all=False)

    def _is_due(self, trainer: L.Trainer) -> bool:
        step = trainer.global_step
        if step == self._saved_step:
            return False
        if self.every_n_steps and step % self.every_n_steps == 0:
            return True
        if not self.every_n_seconds or (trainer.world_size > 1 and step % trainer.log_every_n_steps):  # type: ignore[attr-defined]
            return False  # ranks must agree on the time, and asking at every step would cost
        return trainer.strategy.broadcast(time.monotonic() - self._saved_at >= self.every_n_seconds)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the state from which a longer training would go on: that at the first batch of the next epoch."""
        student = getattr(pl_module, "about", {}).get("stage") == "student"  # all others have one length
        if self.extendable and student and trainer.current_epoch == trainer.max_epochs:
            self._ended = True
            self.save(trainer)
            self._ended = False

    def save(self, trainer: L.Trainer) -> None:
        """Writes the state of all ranks; deletes the oldest beyond ``keep``."""
        folder = Path(trainer.default_root_dir) / "states"
        self._saves = True
        trainer.save_checkpoint(folder / f"step={trainer.global_step:08d}.ckpt", weights_only=False)
        self._saves = False
        if trainer.is_global_zero:
            keep_newest(folder, self.keep)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Corrects Lightning's logging step: it adds one on resuming, as its own checkpoints come after a batch."""
        checkpoint["world_size"] = trainer.world_size
        if self._saves:
            take_back_logging_step(checkpoint)
        if self._ended:
            move_to_next_epoch(checkpoint)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compares the number of ranks.

        Raises:
            TutelageError: it has changed; random draws and sums would differ from those of an uninterrupted run.
        """
        if (before := checkpoint.get("world_size", trainer.world_size)) != trainer.world_size:
            raise TutelageError(
                f"{trainer.default_root_dir}: its state was saved by {before} ranks, now there are "
                f"{trainer.world_size}; resume with as many (trainer.devices), or start again in another "
                "hydra.run.dir"
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns the training time so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self._seconds_before = state_dict["seconds"]


class VerifiedIO(TorchCheckpointIO):
    """Writes checkpoint files atomically.

    Args:
        folder: of the states to go on from, which have their SHA-256 in the name.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes ``path``; of a state ``<path's stem>-<digest>.ckpt`` beside it."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content, path = buffer.getvalue(), Path(path)
        if path.parent == self.folder:
            path = path.with_name(f"{path.stem}-{_digest(content)}.ckpt")
        write_atomically(path, content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def states(folder: Path) -> list[Path]:
    """Returns the states in a folder, oldest first."""
    return sorted(folder.glob("step=*.ckpt"))


def keep_newest(folder: Path, number: int) -> None:
    """Removes all states in a folder but the ``number`` newest."""
    for old in states(folder)[:-number]:
        old.unlink()


def newest_intact(folder: Path) -> Path | None:
    """Returns the newest state whose content has the digest in its name; logs the damaged ones."""
    for path in reversed(states(folder)):
        if _digest(path.read_bytes()) == path.stem.rpartition("-")[2]:
            return path
        log.warning("%s is truncated or damaged (its SHA-256 does not match its name): trying the previous one", path)
    return None
