"""Lets the ranks of a job find each other, with a time limit, while signals and dead processes are noticed."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from tutelage.errors import TutelageError

PATIENCE = 300.0  # seconds for all ranks to join: each starts Python and imports torch, maybe from a slow file system
GRACE = 30.0  # seconds for a rank to end by itself after another one has ended
STARTED = "TUTELAGE_STARTED_RANK"  # in the environment of ranks that another rank has started
CONFIG = "rank"  # the name of the config that such a rank is given
_LENGTH = struct.Struct("<Q")

# Process groups that this process was in, by address: jobs of a multirun have one each, under torchrun at one address;
# where a job starts its own ranks they are at a new one, and each counts from 1.
_groups: Counter[tuple[str, str]] = Counter()
_stores: dict[tuple[str, str], Any] = {}


def join(backend: str, children: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Waits for all ranks and brings their process group up.

    Args:
        backend: gloo or nccl.
        children: those that this process has started, ranks 1 and on.

    Raises:
        TutelageError: a child ended, or ranks did not join in time; names them.
    """
    joining = _Joining(backend)
    thread = threading.Thread(target=joining.run, name="rendezvous", daemon=True)  # torch's calls ignore signals
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while thread.is_alive():
        thread.join(0.1)
        for rank, child in enumerate(children, start=1):
            if (code := child.poll()) is not None:
                raise TutelageError(f"rank {rank} ended with exit code {code} while the ranks were starting")
        if time.monotonic() > deadline:
            raise TutelageError(joining.late())
    if joining.error is not None:
        raise TutelageError(f"{joining.late()}: {joining.error}") from joining.error


class _Joining:
    """Joins the process group in a thread of its own."""

    def __init__(self, backend: str):
        _groups[_address()] += 1
        self.backend, self.rank, self.size = backend, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.name = f"tutelage.{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}.{_groups[_address()]}"
        self.missing = [rank for rank in range(self.size) if rank != self.rank]
        self.error: Exception | None = None

    def run(self) -> None:
        import torch.distributed as dist

        try:
            store = dist.PrefixStore(self.name, _store(self.rank, self.size))
            store.set(f"here.{self.rank}", "")
            while self.missing:
                self.missing = [rank for rank in self.missing if not store.check([f"here.{rank}"])]
                time.sleep(0.05)
            dist.init_process_group(self.backend, store=store, rank=self.rank, world_size=self.size)
        except Exception as error:
            self.error = error

    def late(self) -> str:
        """Returns the error message for an incomplete group."""
        place = ":".join(_address())
        if self.missing:
            return (
                f"rank {self.rank} of {self.size}: ranks {self.missing} are missing at {place} after {PATIENCE:.0f} s"
            )
        return f"rank {self.rank} of {self.size}: all ranks reached {place}, but can't be connected"


def _address() -> tuple[str, str]:
    return os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]


def _store(rank: int, size: int) -> Any:
    """Returns the store through which ranks find each other: rank 0's, or that of torchrun's agent."""
    from torch.distributed import TCPStore

    address = _address()
    if address not in _stores:
        _stores.clear()
        serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        patience = timedelta(seconds=PATIENCE)
        _stores[address] = TCPStore(address[0], int(address[1]), size, serves, patience, wait_for_workers=False)
    return _stores[address]


def check_same_folder(folder: Path) -> None:
    """Compares the job's folder over all ranks.

    Raises:
        TutelageError: they differ, for example because each was named by the rank's own clock.
    """
    import torch.distributed as dist

    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, "/".join(folder.absolute().parts[-2:]))  # nodes may mount it at different paths
    if len(set(found)) > 1:
        raise TutelageError(
            f"the ranks have different folders ({', '.join(sorted(set(found)))}): set one with hydra.run.dir=…"
        )


def check_shared(artifacts: Path) -> None:
    """Checks that the ranks of several machines share a file system: one makes an artifact, all read it.

    Raises:
        TutelageError: they do not.
    """
    import torch.distributed as dist

    rank, name = dist.get_rank(), [uuid.uuid4().hex]
    dist.broadcast_object_list(name)
    mark = artifacts / f".ranks-{name[0]}"
    if rank == 0:
        artifacts.mkdir(parents=True, exist_ok=True)
        mark.touch()
    dist.barrier()
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, (mark.exists(), f"{artifacts.absolute()} on {socket.gethostname()}"))
    if rank == 0:
        mark.unlink()
    if blind := [place for sees, place in found if not sees]:
        raise TutelageError(
            f"paths.artifacts must be one folder for all ranks, on a file system that they share; {blind[0]} is not "
            + found[0][1]
        )


@contextmanager
def watched(children: Sequence["subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Context manager that ends this process within a minute of the death of another rank, even while torch waits."""
    left = threading.Event()

    def watch() -> None:
        while not left.wait(1.0):
            gone = {rank: child.poll() for rank, child in enumerate(children, start=1) if child.poll()}
            if gone:
                if not left.wait(GRACE):
                    print(f"other ranks have ended (rank: exit code): {gone}", file=sys.stderr)
                    os._exit(1)
                return

    if children:
        threading.Thread(target=watch, name="ranks", daemon=True).start()
    try:
        yield
    finally:
        left.set()


def send_config(child: "subprocess.Popen[bytes]", config: str) -> None:
    """Sends a rank its config through its standard input, so that no file contains its credentials."""
    assert child.stdin is not None
    content = config.encode()
    left = _LENGTH.pack(len(content)) + content
    with suppress(BrokenPipeError):  # it has ended already, which is reported elsewhere
        while left:  # unbuffered, as closing a buffer with content would fail, too
            left = left[os.write(child.stdin.fileno(), left) :]


def receive_config() -> None:
    """Receives the config in a rank started by another one, as :data:`CONFIG` for Hydra."""
    if STARTED not in os.environ:
        return
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    (length,) = _LENGTH.unpack(_read(_LENGTH.size))
    ConfigStore.instance().store(CONFIG, OmegaConf.create(_read(length).decode()))


def _read(size: int) -> bytes:
    """Reads exactly that many bytes of standard input."""
    content = b""
    while len(content) < size:
        part = os.read(0, size - len(content))
        if not part:
            raise TutelageError("the process that starts the ranks ended before sending their config")
        content += part
    return content


def follow_starter() -> None:
    """Makes a rank started by another one end with it, however that one ends."""
    if os.environ.pop(STARTED, None) is None:
        return

    def follow() -> None:
        os.read(0, 1)  # a pipe to the starter, which writes nothing after the config
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=follow, name="starter", daemon=True).start()
