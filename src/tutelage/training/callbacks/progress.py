"""Progress output while a network trains."""

import sys
import time
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tutelage.training.fast_loop import Quiet
from tutelage.training.module import SupervisedModule


class Progress(ProgressBar, Quiet):
    """A rich bar with epoch, speed, loss parts and validation accuracy; in a file or a pipe, ten plain lines instead.

    It is redrawn by the clock, not by the batch: a bar that follows every batch costs a small network half its speed.

    Args:
        seconds: time between two drawings.
    """

    def __init__(self, seconds: float = 0.2):
        super().__init__()
        self.seconds = seconds
        self.console = Console(file=sys.stdout)
        self._bar: Bar | None = None
        self._drawn = self._counted_at = 0.0
        self._counted = 0
        self._speed = 0.0
        self._enabled = True

    def disable(self) -> None:
        """Lightning's switch for ranks that should be quiet."""
        self._enabled = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Opens the bar."""
        self._counted_at, self._counted = time.monotonic(), trainer.global_step
        if self._enabled and trainer.is_global_zero and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=12), TimeRemainingColumn(compact=True))
            figures = TextColumn("{task.fields[figures]}")
            self._bar = Bar(*columns, figures, console=self.console, auto_refresh=False, transient=True)
            self._task = self._bar.add_task("", total=int(trainer.estimated_stepping_batches), figures="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draws, if it is time."""
        if self._bar is not None and (now := time.monotonic()) - self._drawn >= self.seconds:
            self._drawn = now
            self._draw(trainer, pl_module)

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._bar is not None
        self._measure(trainer)
        self._bar.update(
            self._task, completed=trainer.global_step, description=self._where(trainer, pl_module),
            figures=f"{self._speed:.0f}/s  {self._figures(trainer)}", refresh=True,
        )  # fmt: skip

    def _measure(self, trainer: L.Trainer) -> None:
        now = time.monotonic()
        if now - self._counted_at > 0.1 or not self._speed:
            self._speed = (trainer.global_step - self._counted) / max(now - self._counted_at, 1e-9)
            self._counted_at, self._counted = now, trainer.global_step

    @staticmethod
    def _where(trainer: L.Trainer, pl_module: L.LightningModule) -> str:
        return f"{_stage(pl_module)} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"

    @staticmethod
    def _figures(trainer: L.Trainer) -> str:
        return "  ".join(
            f"{name.removeprefix('train/').replace('val/', 'val ')} {float(value):.3g}"
            for name, value in trainer.progress_bar_metrics.items()
        )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Redraws with the new accuracy, or prints a line for every tenth of the training."""
        if trainer.sanity_checking or not self._enabled or not trainer.is_global_zero:
            return
        if self._bar is not None:
            self._draw(trainer, pl_module)
        elif trainer.max_epochs and (trainer.current_epoch + 1) % max(1, trainer.max_epochs // 10) == 0:
            self._measure(trainer)
            self.console.print(
                f"{self._where(trainer, pl_module)}  {self._speed:.0f} it/s  {self._figures(trainer)}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the bar away; what stays is one line."""
        shown = self._bar is not None
        self._close()
        if shown:
            self.console.print(f"{self._where_done(trainer, pl_module)}  {self._figures(trainer)}", highlight=False)

    @staticmethod
    def _where_done(trainer: L.Trainer, pl_module: L.LightningModule) -> str:
        return f"{_stage(pl_module)} trained: {trainer.max_epochs} epochs"

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leaves the terminal in order."""
        self._close()


def _stage(module: L.LightningModule) -> str:
    return cast(SupervisedModule, module).about.get("stage", "training")
