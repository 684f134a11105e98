"""Runs as a script: forks a ``python -m tutelage`` for each request, with torch and Lightning imported already.

A request comes over the socket whose number is the argument: JSON with the arguments, the folder and the environment,
and the descriptors of stdout and stderr. The answers are the process' id, and its exit code once it has ended.
"""

import importlib
import json
import os
import runpy
import socket
import sys

import hydra

from tutelage.config.paths import conf_dir
from tutelage.runtime.source_code import trace

# What a training imports before its first step.
EARLY = (
    "tutelage.cli.distill", "tutelage.pipeline.distill", "tutelage.pipeline.evaluate", "tutelage.data.digits",
    "tutelage.models.mlp", "sklearn.datasets", "torch.utils.tensorboard", "tutelage.report.write",
)  # fmt: skip


def serve(channel: socket.socket) -> None:
    """Returns in every process that is to be a command; ends with the tests."""
    while True:
        request, descriptors, *_ = socket.recv_fds(channel, 1 << 20, 2)
        if not request:
            sys.exit()
        child = os.fork()
        if child == 0:
            return _become(json.loads(request), descriptors, channel)
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(child).encode())
        _, status = os.waitpid(child, 0)
        channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(request: dict, descriptors: list[int], channel: socket.socket) -> None:
    channel.close()
    for descriptor, stream in zip(descriptors, (1, 2), strict=True):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["tutelage", *request["arguments"]]


def prepare() -> None:
    """Does what is the same for every command: imports, Hydra's search for plugins, digests of the source."""
    for name in EARLY:
        importlib.import_module(name)
    with hydra.initialize_config_dir(conf_dir(), version_base="1.3"):
        hydra.compose("distill")
    trace(["tutelage.data.digits.Digits", "tutelage.models.mlp.MLP", "torch.optim.AdamW"])


if __name__ == "__main__":
    prepare()
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("tutelage", run_name="__main__", alter_sys=True)
