"""Runs independent tasks in parallel processes."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch
from omegaconf import DictConfig, ListConfig

from tutelage.config import resolvers
from tutelage.errors import TutelageError, explain
from tutelage.runtime import distributed, masking
from tutelage.runtime.messages import quiet
from tutelage.runtime.signals import PREEMPTED, sigterm_ends

_SEEN = "CUDA_VISIBLE_DEVICES"


def workers(asked: int | None, trainer: DictConfig) -> int:
    """Returns the number of processes: as configured, else one per GPU; one in a job of several ranks."""
    if distributed.is_up():
        return 1
    return asked or max(1, gpus(trainer))


def gpus(trainer: DictConfig) -> int:
    """Returns the number of GPUs that the processes share; 0 if the trainer's config names a GPU."""
    return 0 if isinstance(trainer.devices, ListConfig) else distributed.gpus(trainer)


def run(tasks: Sequence[Callable[[], object]], processes: int, gpus: int) -> None:
    """Runs tasks in several spawned processes, which see one GPU each and share the CPU's threads.

    None of them outlives this call, whether a task fails, a signal arrives or this process dies.

    Args:
        tasks: picklable; what they return is dropped.
        processes: how many, at most; process i has tasks i, i + processes …, one after the other.
        gpus: how many there are; 0 for work on the CPU.

    Raises:
        TutelageError: a task failed; says why.
        SystemExit: with 143: a process received SIGTERM.
    """
    spawn, processes = multiprocessing.get_context("spawn"), min(processes, len(tasks))
    running: dict[int, tuple[BaseProcess, Connection]] = {}
    try:
        for number in range(processes):
            hears, tells = spawn.Pipe(duplex=False)
            process = spawn.Process(
                target=_work, args=(list(tasks[number::processes]), processes, tells, masking.known())
            )
            with _one_gpu(number, gpus):
                process.start()
            tells.close()
            running[process.sentinel] = process, hears
        while running:
            for sentinel in wait(list(running)):
                _finish(*running[sentinel])  # type: ignore[index]
                del running[sentinel]  # type: ignore[arg-type]
    finally:
        _end([process for process, _ in running.values()])


def _finish(process: BaseProcess, hears: Connection) -> None:
    process.join()
    if process.exitcode == PREEMPTED:
        raise SystemExit(PREEMPTED)
    if process.exitcode:
        try:
            message = hears.recv()
        except EOFError:  # killed, so it sent no message
            message = f"a process that trained one of several networks ended with exit code {process.exitcode}"
        raise TutelageError(message)


def _end(processes: list[BaseProcess]) -> None:
    """Sends SIGTERM, on which trainings save their state; kills after a minute."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(60)
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _one_gpu(number: int, gpus: int) -> Iterator[None]:
    """Context manager in which a process that starts sees one of the GPUs that are visible here."""
    before = os.environ.get(_SEEN)
    if gpus:
        seen = before.split(",") if before else [str(gpu) for gpu in range(gpus)]
        os.environ[_SEEN] = seen[number % gpus]
    try:
        yield
    finally:
        if gpus and before is None:
            del os.environ[_SEEN]
        elif before is not None:
            os.environ[_SEEN] = before


def _work(tasks: list[Callable[[], object]], processes: int, tells: Connection, secrets: list[str]) -> None:
    """Runs trainings in a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.stdout.isatty = lambda: False  # type: ignore[method-assign]  # plain lines, as bars would overwrite each other
    resolvers.register()
    masking.remember(secrets)
    masking.mask_logs()
    quiet()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    try:
        with sigterm_ends():
            for task in tasks:
                task()
    except Exception as error:
        tells.send((explain(error) or type(error).__name__).splitlines()[0])
        if not isinstance(error, TutelageError):
            raise
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
