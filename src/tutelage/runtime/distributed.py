"""The ranks of a job: all run the same program on the job's composed config.

Lightning's own launcher repeats the command line, which in a multirun starts the whole sweep again in other folders
and under a sweeper trains ranks with different hyperparameters. Here the job starts its ranks itself, once, and sends
them the composed config through a pipe; Lightning then finds an initialised process group and starts nothing.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from tutelage.errors import TutelageError
from tutelage.runtime import rendezvous

if TYPE_CHECKING:
    import torch

_ENVIRONMENT = (rendezvous.STARTED, "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "NODE_RANK", "LOCAL_RANK")
# variables that torchrun and Tutelage set for a rank
_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_main() -> bool:
    """Checks whether this process is the one that writes files."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def is_up() -> bool:
    """Checks whether this process is one of several ranks with a process group."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def broadcast(value: Any) -> Any:
    """Returns rank 0's value on every rank, with tensors on the host."""
    if not is_up():
        return value
    import torch
    import torch.distributed as dist

    from tutelage.compat.torch import map_tensors

    box = [map_tensors(torch.Tensor.cpu, value)]  # else all ranks would load them to rank 0's GPU
    dist.broadcast_object_list(box, src=0, group=_messages.group)
    return box[0]


def barrier() -> None:
    """Waits for all ranks."""
    if is_up():
        import torch.distributed as dist

        dist.barrier(group=_messages.group)


class _Messages:
    """Exchanges messages between the ranks of this process's group.

    Attributes:
        group: of torch.distributed, that :func:`broadcast` and :func:`barrier` use; None: the default one.
    """

    group: Any = None


_messages = _Messages()
_PATIENCE = timedelta(days=30)  # ranks wait while one of them trains, writes signals or waits for a lock


def ranks_here(trainer: DictConfig) -> int:
    """Returns the number of ranks on this machine that the trainer config asks for."""
    strategy, devices = str(trainer.get("strategy", "auto")), trainer.get("devices", 1)
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise TutelageError(
            f"trainer.strategy={strategy}: its ranks run only `fit` and return nothing; use trainer.strategy=ddp"
        )
    if (asked := _asked(devices)) is None:
        return max(1, gpus(trainer))
    return len(asked) if isinstance(asked, list) else asked


def _asked(devices: Any) -> int | list[int] | None:
    """Returns the number or list of devices in ``trainer.devices``; None for all.

    Raises:
        TutelageError: it says neither.
    """
    try:
        if isinstance(devices, ListConfig | list | tuple):
            return [int(device) for device in devices]
        if str(devices) in ("auto", "-1"):
            return None
        if "," in str(devices):
            return [int(device) for device in str(devices).split(",") if device.strip()]
        return int(devices)
    except (TypeError, ValueError):
        raise TutelageError(
            f"trainer.devices must be a number of devices, a list of their indices or 'auto'; found {devices!r}"
        ) from None


def check_devices(trainer: DictConfig) -> None:
    """Refuses devices that don't exist, before anything is built.

    Raises:
        TutelageError: no device is requested, one that this machine lacks, or more ranks than GPUs.
    """
    devices, there = trainer.get("devices", 1), gpus(trainer)
    asked = _asked(devices)
    least = min(asked, default=-1) + 1 if isinstance(asked, list) else asked
    if least is not None and least < 1:
        raise TutelageError(f"trainer.devices must be at least 1, or 'auto'; found {devices!r}")
    if trainer.get("accelerator", "auto") == "cuda" and not there:
        raise TutelageError(
            "trainer.accelerator=cuda: PyTorch finds no GPU here; trainer.accelerator=auto uses what is available"
        )
    if there and isinstance(asked, list) and max(asked) >= there:
        raise TutelageError(f"trainer.devices={devices}: this machine has GPUs 0 to {there - 1}")
    if there and isinstance(asked, int) and asked > there:
        raise TutelageError(
            f"trainer.devices={devices}: every rank needs a GPU of its own, and there {_are(there)} here; use "
            f"trainer.devices={there}, or trainer.accelerator=cpu for ranks without GPUs"
        )


def _are(count: int) -> str:
    return f"are {count}" if count > 1 else "is 1"


def device(trainer: DictConfig) -> "torch.device":
    """Returns the device that this process trains on: the GPU of its local rank among the trainer's GPUs."""
    import torch

    if not gpus(trainer):
        return torch.device("cpu")
    asked, rank = _asked(trainer.get("devices", 1)), int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", asked[rank] if isinstance(asked, list) else rank)


def check_environment(trainer: DictConfig) -> None:
    """Compares the environment's variables for ranks, which may be left over from another program, with the config.

    Raises:
        TutelageError: they differ, so that ranks would wait for others that nobody starts.
    """
    nodes = int(trainer.get("num_nodes", 1))
    given = {name: os.environ[name] for name in _LAUNCHED if name in os.environ}
    rank = given.get("RANK", given.get("LOCAL_RANK", "0"))
    if not {"RANK", "WORLD_SIZE"} <= given.keys():
        if rank != "0":
            raise TutelageError(
                f"the environment has {_assignments(given)}, but no group of ranks was started; unset {' '.join(given)}"
            )
        if nodes > 1:
            raise TutelageError(
                f"trainer.num_nodes={nodes}: start the ranks of several machines with SLURM or torchrun "
                "(docs/cluster.md)"
            )
        return
    if not all(given[name].isdigit() for name in ("RANK", "WORLD_SIZE")) or int(rank) >= int(given["WORLD_SIZE"]):
        raise TutelageError(
            f"the environment has {_assignments(given)}, which is not a valid rank; unset {' '.join(given)}"
        )
    if int(given["WORLD_SIZE"]) != (expected := ranks_here(trainer) * nodes):
        raise TutelageError(
            f"the environment has {_assignments(given)} (from torchrun, SLURM or an earlier program), but the config "
            f"trainer.devices × trainer.num_nodes = {expected}: start that many ranks, or unset {' '.join(given)}"
        )
    if int(given["WORLD_SIZE"]) > 1 and (missing := [name for name in _LAUNCHED if name not in given]):
        raise TutelageError(f"the environment has {_assignments(given)}, but not {', '.join(missing)}")


def _assignments(given: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in given.items())


def gpus(trainer: DictConfig) -> int:
    """Returns the number of GPUs of this machine that the trainer may use."""
    import torch

    return torch.cuda.device_count() if trainer.get("accelerator", "auto") in ("gpu", "cuda", "auto") else 0


@contextmanager
def ranks(cfg: DictConfig, verb: str, folder: Path) -> Iterator[None]:
    """Context manager that starts the job's ranks and their process group, and ends both on exit.

    Args:
        cfg: the job's composed config.
        verb: what the other ranks run.
        folder: the job's folder.

    Raises:
        TutelageError: a strategy that cannot work here, or a rank that failed.
    """
    launched = "WORLD_SIZE" in os.environ and "RANK" in os.environ  # by us as a rank, or by torchrun
    size = int(os.environ["WORLD_SIZE"]) if launched else ranks_here(cfg.trainer)
    # sharding needs a group even for one rank
    if size == 1 and not isinstance(cfg.trainer.get("strategy"), DictConfig):
        yield
        return
    rendezvous.follow_starter()
    children = [] if launched else _start(size, cfg, verb, folder)
    failed = True
    try:
        _join(cfg.trainer, children)
        rendezvous.check_same_folder(folder)
        if size > ranks_here(cfg.trainer):
            rendezvous.check_shared(Path(cfg.paths.artifacts))
        with rendezvous.watched(children):
            yield
        failed = False
    finally:
        _leave(children, failed, launched)


def _start(size: int, cfg: DictConfig, verb: str, folder: Path) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "NODE_RANK": "0"}
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0"}
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    command = [sys.executable, "-m", "tutelage", verb, "--config-name", rendezvous.CONFIG, f"hydra.run.dir='{quoted}'"]
    command += ["hydra.output_subdir=null", "hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]
    # In a session of their own: Ctrl-C reaches only this process, and the pipe tells them when it ends.
    children = [
        subprocess.Popen(
            command, env=os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), rendezvous.STARTED: "1"},
            stdin=subprocess.PIPE, process_group=0,
        )
        for rank in range(1, size)
    ]  # fmt: skip
    for child in children:
        # unresolved, because stages merge their settings into it later
        rendezvous.send_config(child, OmegaConf.to_yaml(cfg))
    return children


def _join(trainer: DictConfig, children: list[subprocess.Popen[bytes]]) -> None:
    """Makes this process a rank: tensors go through NCCL where ranks have GPUs, else through gloo.

    Messages between trainings go through gloo on the host, which may wait for as long as a training takes; NCCL would
    end the job after ten minutes.
    """
    import torch
    import torch.distributed as dist

    if (own := device(trainer)).type == "cuda":
        torch.cuda.set_device(own)
    rendezvous.join(dist.get_default_backend_for_device(own), children)
    _messages.group = dist.new_group(backend="gloo", timeout=_PATIENCE)


def _leave(children: list[subprocess.Popen[bytes]], failed: bool, launched: bool) -> None:
    """Ends the group and the ranks; cleans the environment, so that the next job of a sweep is not taken for a rank."""
    import torch.distributed as dist

    _messages.group = None

    if is_up():
        dist.destroy_process_group()
    deadline = time.monotonic() + (5 if failed else 60)  # time to log what went wrong there
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
        raise TutelageError(f"ranks ended with exit codes {codes}; see their logs in the run's folder")
