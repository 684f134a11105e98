"""The command line in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Timer

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


@cache
def _forks() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The one process of these tests that forks commands, and the socket to it; it ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, str(HELPERS / "forks.py"), str(theirs.fileno())]
        return ours, subprocess.Popen(command, env=environment(), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)


def _all(descriptor: int) -> str:
    with open(descriptor) as stream:
        return stream.read()


def tutelage(
    *arguments: str, cwd: Path, check: bool = True, timeout: float = 1200, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m tutelage`` in ``cwd``, in a process of its own.

    It is forked from a process that has imported torch and Lightning, which saves seconds a command. Folder,
    environment, signals, exit code and what it says are those of any process.
    """
    request = {"arguments": arguments, "cwd": str(cwd), "environment": environment(**env)}
    channel, _ = _forks()
    pipes = [os.pipe() for _ in range(2)]
    socket.send_fds(channel, [json.dumps(request).encode()], [write for _, write in pipes])
    for _, write in pipes:
        os.close(write)
    limit = Timer(timeout, os.kill, (int(channel.recv(64)), signal.SIGKILL))
    limit.daemon = True
    limit.start()
    try:
        with ThreadPoolExecutor(2) as readers:
            out, err = readers.map(lambda pipe: _all(pipe[0]), pipes)
        done = subprocess.CompletedProcess(["tutelage", *arguments], int(channel.recv(64)), out, err)
    finally:
        limit.cancel()
    assert not check or done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
