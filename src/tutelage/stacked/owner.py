"""Locks for stacked training: one process per sweep folder, and none in the folder of a running job."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tutelage.errors import TutelageError
from tutelage.runtime.job import PATIENCE
from tutelage.stacked.plan import Job


@contextmanager
def only_owner(folder: Path) -> Iterator[None]:
    """Context manager that keeps other processes from training stacks of the sweep in ``folder``.

    Raises:
        TutelageError: another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        if not _take(held, folder / ".stacks.lock", PATIENCE):
            raise TutelageError(
                f"another process trains the stacked sweep in {folder} (see tutelage status); wait for it, or choose "
                "another hydra.sweep.dir"
            )
        yield


@contextmanager
def free(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Context manager that locks and yields those of ``jobs`` that no other process runs."""
    with ExitStack() as held:
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
        yield [job for job in jobs if _take(held, job.folder / ".lock", 0.0)]


def _take(held: ExitStack, path: Path, timeout: float) -> bool:
    try:
        held.enter_context(FileLock(path).acquire(timeout=timeout))
    except Timeout:
        return False
    return True
