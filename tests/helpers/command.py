"""The command line in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import tutelage as package

HELPERS = Path(__file__).parent
PACKAGE = Path(package.__file__).parents[1]

# The smallest job that still trains all three in a second, whatever the default pair and splits are: 18 steps an epoch.
PAIR = ("model@teacher=mlp", "model@student=mlp", "teacher.net.widths=[16]", "student.net.widths=[8]")
SPLITS = ("data.batch_size=64", "data.val_size=300", "data.test_size=297")
TINY = ("trainer.max_epochs=2", *PAIR, *SPLITS)

_NOT_INHERITED = (
    "HYDRA_FULL_ERROR", "TUTELAGE_DATA", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT",
    "WANDB_SERVICE",
)  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    """The environment of a fresh process: one thread, the same package as here, nothing of a rank or of a user's."""
    ours = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HELPERS}{os.pathsep}{PACKAGE}", "COLUMNS": "200"}
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED} | ours | more


def tutelage(
    *arguments: str, cwd: Path, check: bool = True, timeout: float = 1200, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m tutelage`` in ``cwd``."""
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", *arguments],
        cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
