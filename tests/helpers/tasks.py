"""Tasks for processes of :mod:`tutelage.pipeline.workers`; importable there by ``PYTHONPATH``."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tutelage.errors import TutelageError


def note(path: Path) -> None:
    """Writes the task's process, GPUs and number of threads."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    path.write_text(f"{os.getpid()} {seen} {torch.get_num_threads()} {sys.stdout.isatty()}")


def refuse(path: Path) -> None:
    raise TutelageError(f"cannot do {path.name}\nbecause of the second line")


def die(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def written(path: Path) -> str:
    """Returns the content of the file, once it has any."""
    end = time.monotonic() + 1200
    while not (path.exists() and path.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    return path.read_text()


def after(other: Path, task: Callable[[Path], None], path: Path) -> None:
    written(other)
    task(path)


def wait(path: Path) -> None:
    """Until it is ended, which it notes."""
    path.write_text(str(os.getpid()))
    try:
        time.sleep(120)
    finally:
        path.with_suffix(".ended").touch()
