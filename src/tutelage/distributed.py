"""The ranks of a job: every one runs the same program on the job's own, already composed config.

Lightning's own launcher repeats the command line, which in a multirun starts the whole sweep again in other folders
and under a sweeper trains ranks with different hyperparameters. Here the job starts its ranks itself, once, on the
config in its folder; Lightning then finds a process group that is up and starts nothing.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from tutelage import rendezvous
from tutelage.errors import TutelageError
from tutelage.files import write_atomically

_ENVIRONMENT = (rendezvous.STARTED, "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "NODE_RANK", "LOCAL_RANK")
_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun and we tell a rank


def is_main() -> bool:
    """Whether this process is the one that writes files."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def is_up() -> bool:
    """Whether this process is one of several ranks in step."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def broadcast(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if not is_up():
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def barrier() -> None:
    """Waits for all ranks."""
    if is_up():
        import torch.distributed as dist

        dist.barrier()


def ranks_here(trainer: DictConfig) -> int:
    """How many ranks on this machine the trainer config asks for."""
    strategy, devices = str(trainer.get("strategy", "auto")), trainer.get("devices", 1)
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise TutelageError(
            f"trainer.strategy={strategy}: its ranks run only `fit` and give nothing back; use trainer.strategy=ddp"
        )
    if isinstance(devices, ListConfig):
        return len(devices)
    if str(devices) in ("auto", "-1"):
        return max(1, gpus(trainer))
    return int(devices)


def check_environment(trainer: DictConfig) -> None:
    """Compares what the environment says of ranks, which may be left over from another program, with the config.

    Raises:
        TutelageError: they differ: the ranks would wait for some that nobody starts.
    """
    nodes, given = (
        int(trainer.get("num_nodes", 1)),
        {name: os.environ[name] for name in _LAUNCHED if name in os.environ},
    )
    rank = given.get("RANK", given.get("LOCAL_RANK", "0"))
    if not {"RANK", "WORLD_SIZE"} <= given.keys():
        if rank != "0":
            raise TutelageError(f"the environment has {_said(given)}, a rank of no group; unset {' '.join(given)}")
        if nodes > 1:
            raise TutelageError(
                f"trainer.num_nodes={nodes}: ranks on several machines are started by SLURM or torchrun, which started "
                "none here (docs/cluster.md)"
            )
        return
    if not all(given[name].isdigit() for name in ("RANK", "WORLD_SIZE")) or int(rank) >= int(given["WORLD_SIZE"]):
        raise TutelageError(f"the environment has {_said(given)}: no rank of several; unset {' '.join(given)}")
    if int(given["WORLD_SIZE"]) != (expected := ranks_here(trainer) * nodes):
        raise TutelageError(
            f"the environment has {_said(given)} (of torchrun, of SLURM's tasks, or left over), the config asks for "
            f"trainer.devices × trainer.num_nodes = {expected}: start as many, or unset {' '.join(given)}"
        )
    if int(given["WORLD_SIZE"]) > 1 and (missing := [name for name in _LAUNCHED if name not in given]):
        raise TutelageError(f"the environment has {_said(given)}, but not {', '.join(missing)}")


def _said(given: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in given.items())


def gpus(trainer: DictConfig) -> int:
    """How many GPUs this machine has for the trainer."""
    import torch

    return torch.cuda.device_count() if trainer.get("accelerator", "auto") in ("gpu", "cuda", "auto") else 0


@contextmanager
def ranks(cfg: DictConfig, verb: str, folder: Path) -> Iterator[None]:
    """Inside, the job's ranks run in step and their process group is up; after, nothing of them is left.

    Args:
        cfg: the job's composed config.
        verb: what the other ranks run.
        folder: the job's folder.

    Raises:
        TutelageError: a strategy that cannot work here, or a rank that failed.
    """
    launched = "WORLD_SIZE" in os.environ and "RANK" in os.environ  # by us as a rank, or by torchrun
    size = int(os.environ["WORLD_SIZE"]) if launched else ranks_here(cfg.trainer)
    if size == 1 and not isinstance(cfg.trainer.get("strategy"), DictConfig):  # shards need a group even of one
        yield
        return
    rendezvous.follow_starter()
    children = [] if launched else _start(size, cfg, verb, folder)
    failed = True
    try:
        _join(cfg.trainer, children)
        rendezvous.check_same_folder(folder)
        with rendezvous.watched(children):
            yield
        failed = False
    finally:
        _leave(children, failed, launched)
        if not launched:  # it may hold credentials
            _replay(folder).unlink(missing_ok=True)


def _start(size: int, cfg: DictConfig, verb: str, folder: Path) -> list[subprocess.Popen[bytes]]:
    replay = _replay(folder)
    write_atomically(replay, OmegaConf.to_yaml(cfg).encode())  # unresolved: stages still lay theirs over it
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "NODE_RANK": "0"}
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0"}
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    command = [sys.executable, "-m", "tutelage", verb, "--config-path", str(replay.parent), "--config-name", "config"]
    command += [f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"]
    command += ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]
    # Apart from the terminal, whose Ctrl-C is this process's to hear; the pipe tells them when it is gone.
    return [
        subprocess.Popen(
            command, env=os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), rendezvous.STARTED: "1"},
            stdin=subprocess.PIPE, process_group=0,
        )
        for rank in range(1, size)
    ]  # fmt: skip


def _replay(folder: Path) -> Path:
    return (folder / ".ranks" / "config.yaml").absolute()


def _join(trainer: DictConfig, children: list[subprocess.Popen[bytes]]) -> None:
    import torch

    if gpus(trainer):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    rendezvous.join("nccl" if gpus(trainer) else "gloo", children)


def _leave(children: list[subprocess.Popen[bytes]], failed: bool, launched: bool) -> None:
    """Ends the group and the ranks; a clean environment, or the next job of a sweep would take itself for a rank."""
    import torch.distributed as dist

    if is_up():
        dist.destroy_process_group()
    deadline = time.monotonic() + (5 if failed else 60)  # time to say what went wrong there
    for child in children:
        try:
            child.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdin is not None:
            child.stdin.close()
    if not launched:
        for name in _ENVIRONMENT:
            os.environ.pop(name, None)
    if not failed and (codes := [child.returncode for child in children if child.returncode]):
        raise TutelageError(f"ranks ended with exit codes {codes}; the run's folder has what they said")
