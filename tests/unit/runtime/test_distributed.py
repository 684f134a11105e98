import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from simulated_gpu import simulated_gpus
from torch import nn

from tutelage.config.validate import check
from tutelage.errors import TutelageError
from tutelage.runtime import distributed, rendezvous


def config(**trainer):
    return OmegaConf.create({"trainer": trainer})


def test_one_process_is_its_own_rank(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert distributed.is_main()
    assert distributed.broadcast({"a": 1}) == {"a": 1}
    distributed.barrier()


@pytest.mark.parametrize(
    ("variable", "value", "main"), [("RANK", "0", True), ("RANK", "1", False), ("LOCAL_RANK", "1", False)]
)
def test_the_rank_that_writes(monkeypatch, variable, value, main):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv(variable, value)
    assert distributed.is_main() == main


@pytest.mark.parametrize("devices", [1, [0], "auto", "-1"])
def test_one_device_starts_nothing(tmp_path, devices):
    before = dict(os.environ)
    with distributed.ranks(config(devices=devices, accelerator="cpu"), "distill", tmp_path):
        assert dict(os.environ) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_strategies_that_lose_results_are_refused(tmp_path, strategy):
    cfg = config(devices=2, strategy=strategy, accelerator="cpu")
    with (
        pytest.raises(TutelageError, match=f"trainer.strategy={strategy}"),
        distributed.ranks(cfg, "distill", tmp_path),
    ):
        raise AssertionError("ran")


LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def environment(monkeypatch):
    """``environment(RANK=…)`` sets what is given of a rank's variables, and nothing else of them is there."""

    def put(**given):
        for name in (*LAUNCHED, rendezvous.STARTED):
            monkeypatch.setenv(name, "")  # so that it is restored
            monkeypatch.delenv(name)
        for name, value in given.items():
            monkeypatch.setenv(name, str(value))

    return put


PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29999}


@pytest.mark.parametrize(
    ("trainer", "given", "said"),
    [
        (
            {"devices": 1},
            {"WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0, **PLACE},
            r"WORLD_SIZE=2 .*num_nodes = 1.*unset",
        ),
        ({"devices": 2}, {"WORLD_SIZE": 4, "RANK": 0, "LOCAL_RANK": 0, **PLACE}, r"WORLD_SIZE=4 .*num_nodes = 2"),
        ({"devices": 2, "num_nodes": 2}, {"WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1, **PLACE}, "num_nodes = 4"),
        ({"devices": 2, "num_nodes": 2}, {}, "trainer.num_nodes=2: start the ranks of several machines with"),
        ({"devices": 1}, {"RANK": 1}, "RANK=1, but no group of ranks was started; unset RANK"),
        ({"devices": 1}, {"LOCAL_RANK": 3}, "LOCAL_RANK=3, but no group of ranks was started"),
        ({"devices": 2}, {"WORLD_SIZE": 2, "RANK": 2}, "which is not a valid rank"),
        ({"devices": 2}, {"WORLD_SIZE": "x", "RANK": 0}, "which is not a valid rank"),
        ({"devices": 2}, {"WORLD_SIZE": 2, "RANK": 0}, "but not LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
    ],
)
def test_an_environment_of_other_ranks_is_refused(environment, trainer, given, said):
    environment(**given)
    with pytest.raises(TutelageError, match=said):
        distributed.check_environment(config(accelerator="cpu", **trainer).trainer)


@pytest.mark.parametrize(
    ("trainer", "given"),
    [
        ({"devices": 1}, {}),
        ({"devices": 2}, {}),
        ({"devices": 1}, {"WORLD_SIZE": 1, "RANK": 0}),
        ({"devices": 1}, {"WORLD_SIZE": 4}),  # without a rank it is nobody's
        ({"devices": 2, "num_nodes": 2}, {"WORLD_SIZE": 4, "RANK": 3, "LOCAL_RANK": 1, **PLACE}),
    ],
)
def test_an_environment_that_fits(environment, trainer, given):
    environment(**given)
    distributed.check_environment(config(accelerator="cpu", **trainer).trainer)


@pytest.fixture
def alone(environment, monkeypatch):
    """This process is rank 0 of two."""
    free = subprocess.run(
        [sys.executable, "-c", "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    environment(WORLD_SIZE=2, RANK=0, LOCAL_RANK=0, MASTER_ADDR="127.0.0.1", MASTER_PORT=free.stdout.strip())
    yield
    rendezvous._stores.clear()


def test_a_rank_that_does_not_come_is_named(alone, monkeypatch):
    monkeypatch.setattr(rendezvous, "PATIENCE", 0.5)
    with pytest.raises(TutelageError, match=r"rank 0 of 2: ranks \[1\] are missing at 127\.0\.0\.1:\d+"):
        rendezvous.join("gloo", [])


def test_a_rank_that_dies_while_starting_ends_the_wait(alone):
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(TutelageError, match="rank 1 ended with exit code 3 while the ranks were starting"):
        rendezvous.join("gloo", [child])


def test_a_signal_is_heard_while_ranks_are_awaited(alone):
    class HeardError(Exception):
        pass

    def hear(number, frame):
        raise HeardError

    before = signal.signal(signal.SIGTERM, hear)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(HeardError):
            rendezvous.join("gloo", [])
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, before)


def test_a_started_rank_ends_with_its_starter():
    program = (
        "from tutelage.runtime import rendezvous; import time; rendezvous.follow_starter(); print(1, flush=True)\n"
    )
    program += "while True: time.sleep(1)"
    rank = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {rendezvous.STARTED: "1"},
    )  # fmt: skip
    assert rank.stdout.read(1) == b"1"
    rank.stdin.close()  # as when the starter dies
    assert rank.wait() == -signal.SIGTERM
    rank.stdout.close()


@pytest.fixture
def gpus(monkeypatch):
    """``gpus(2)``: PyTorch finds two."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("there", "trainer", "said"),
    [
        (
            1,
            {"devices": 2, "strategy": "ddp"},
            "every rank needs a GPU of its own, and there is 1 here; use trainer.dev",
        ),
        (1, {"devices": "2", "accelerator": "cuda"}, "trainer.devices=2: every rank needs a GPU of its own"),
        (
            2,
            {"devices": 4, "accelerator": "gpu"},
            "there are 2 here; use trainer.devices=2, or trainer.accelerator=cpu",
        ),
        (2, {"devices": [0, 2]}, r"trainer.devices=\[0, 2\]: this machine has GPUs 0 to 1"),
        (2, {"devices": "1,2"}, "trainer.devices=1,2: this machine has GPUs 0 to 1"),
        (0, {"accelerator": "cuda"}, "trainer.accelerator=cuda: PyTorch finds no GPU here"),
        (2, {"devices": 0}, "trainer.devices must be at least 1, or 'auto'; found 0"),
        (2, {"devices": []}, r"trainer.devices must be at least 1, or 'auto'; found \[\]"),
        (
            2,
            {"devices": "two"},
            "trainer.devices must be a number of devices, a list of their indices or 'auto'; found",
        ),
        (2, {"devices": None}, "trainer.devices must be a number of devices, a list of their indices or 'auto'; found"),
    ],
)
def test_devices_that_are_not_there_are_refused(gpus, there, trainer, said):
    gpus(there)
    with pytest.raises(TutelageError, match=said):
        distributed.check_devices(config(**trainer).trainer)


@pytest.mark.parametrize(
    ("there", "trainer"),
    [
        (0, {"devices": 2}), (1, {"devices": 2, "accelerator": "cpu"}), (2, {"devices": 2}), (2, {"devices": "auto"}),
        (2, {"devices": [1]}), (2, {"devices": "0,1"}), (1, {}), (0, {"devices": -1}),
    ],
)  # fmt: skip
def test_devices_that_are_there_are_not(gpus, there, trainer):
    gpus(there)
    distributed.check_devices(config(**trainer).trainer)


def test_two_ranks_on_one_gpu_are_refused_before_anything_is_built(gpus, compose):
    gpus(1)
    with pytest.raises(
        TutelageError, match=r"trainer\.devices=2: every rank needs a GPU of its own, and there is 1 here"
    ):
        check(compose("trainer=ddp"))
    with pytest.raises(
        TutelageError, match=r"trainer\.devices=2: every rank needs a GPU of its own, and there is 1 here"
    ):
        check(compose("trainer=fsdp"))
    check(compose("trainer=ddp", "trainer.accelerator=cpu"))


@pytest.mark.parametrize(
    ("trainer", "rank", "expected"),
    [
        ({}, None, "cuda:0"),
        ({"devices": 4}, 3, "cuda:3"),
        ({"devices": [2, 3]}, 1, "cuda:3"),
        ({"devices": "2,"}, None, "cuda:2"),
        ({"devices": 4, "accelerator": "cpu"}, 3, "cpu"),
    ],
)
def test_the_device_of_a_rank(gpus, monkeypatch, trainer, rank, expected):
    """As Lightning counts: by the local rank, among those that the trainer names."""
    gpus(4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert distributed.device(config(**trainer).trainer) == torch.device(expected)


@pytest.mark.parametrize(("there", "backend"), [(2, "nccl"), (0, "gloo")])
def test_tensors_go_through_nccl_and_messages_through_gloo(gpus, monkeypatch, there, backend):
    gpus(there)
    monkeypatch.setenv("LOCAL_RANK", "1")
    said = {}
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: said.update(device=device))
    monkeypatch.setattr(rendezvous, "join", lambda backend, children: said.update(backend=backend))
    monkeypatch.setattr(dist, "new_group", lambda **more: said.update(messages=more) or "messages")
    monkeypatch.setattr(distributed._messages, "group", None)
    distributed._join(config(devices=2).trainer, [])
    assert said["backend"] == backend
    assert said.get("device") == (torch.device("cuda", 1) if there else None)
    assert said["messages"]["backend"] == "gloo"
    assert said["messages"]["timeout"].days > 1
    assert distributed._messages.group == "messages"


def test_what_is_sent_to_other_ranks_is_on_the_host():
    """A tensor of rank 0's GPU would be unpickled there by every rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with simulated_gpus():
            sent = nn.Linear(2, 2).cuda().state_dict()
            sent["_extra_state"] = {"prepared": True}
            found = distributed.broadcast(sent)
        assert {type(found["weight"]), type(found["bias"])} == {torch.Tensor}
        assert found["_extra_state"] == {"prepared": True}
    finally:
        dist.destroy_process_group()
