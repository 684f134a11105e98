"""A logger that does harm: stacks take any logger, and no callback that is made for one network."""

import os
import signal
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger


class StrikeAt(CSVLogger):
    """Sends a signal to its process when the curves of one stage reach a step, once."""

    def __init__(self, step: int, stage: str, number: int, marker: str, **place: str):
        super().__init__(**place)
        self.step, self.due, self.number, self.marker = step, place["version"] == stage, number, Path(marker)

    def log_metrics(self, metrics, step=None) -> None:
        if self.due and step is not None and step >= self.step and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), self.number)


KILL, TERMINATE = int(signal.SIGKILL), int(signal.SIGTERM)
