import os

import pytest
from omegaconf import OmegaConf

from tutelage import distributed
from tutelage.errors import TutelageError


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
