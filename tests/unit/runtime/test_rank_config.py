"""The config of a job's other ranks goes through a pipe: credentials in it are on no disk and in no command line."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from tutelage.errors import TutelageError
from tutelage.runtime import distributed, rendezvous

CFG = OmegaConf.create({"seed": 3, "data": {"seed": "${seed}", "mirror": "https://user:canary7@host/"}})


@pytest.fixture
def _rank(monkeypatch):
    """A rank that another one has started; the config store is as before afterwards."""
    monkeypatch.setenv(rendezvous.STARTED, "1")
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", dict(store.repo))


def test_the_starter_writes_no_file_and_names_no_secret(tmp_path, monkeypatch):
    started = []

    def popen(command, **more):
        pipe = (tmp_path.parent / f"{tmp_path.name}-{len(started)}").open("w+b")  # stands for one
        started.append(SimpleNamespace(command=command, env=more["env"], stdin=pipe))
        return started[-1]

    for name in distributed._ENVIRONMENT:
        monkeypatch.setenv(name, "")  # so that what is set is restored
    monkeypatch.setattr(subprocess, "Popen", popen)
    distributed._start(3, CFG, "distill", tmp_path)
    assert [child.env["RANK"] for child in started] == ["1", "2"]
    assert not list(tmp_path.iterdir())
    for child in started:
        child.stdin.seek(0)
        assert b"canary7" in child.stdin.read()
        child.stdin.close()
        assert "canary7" not in " ".join([*child.command, *map(str, child.env.values())])


@pytest.mark.usefixtures("_rank")
def test_a_rank_composes_what_was_sent_with_its_interpolations():
    large = OmegaConf.merge(CFG, {"text": "x" * 100_000})  # more than a pipe holds
    program = "import os\nwhile part := os.read(0, 1 << 16): os.write(1, part)"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    rendezvous.send_config(child, OmegaConf.to_yaml(large))
    child.stdin.close()
    keyboard = os.dup(0)
    try:
        os.dup2(child.stdout.fileno(), 0)
        rendezvous.receive_config()
    finally:
        os.dup2(keyboard, 0)
        os.close(keyboard)
        child.stdout.close()
    assert child.wait() == 0
    with initialize(None, version_base="1.3"):
        found = compose(rendezvous.CONFIG)
    assert OmegaConf.to_container(found) == OmegaConf.to_container(large)


@pytest.mark.usefixtures("_rank")
def test_a_starter_that_ended_first_is_a_sentence(monkeypatch):
    parts = iter([b"\x05", b""])
    monkeypatch.setattr(os, "read", lambda *_: next(parts))
    with pytest.raises(TutelageError, match="ended before sending their config"):
        rendezvous.receive_config()


def test_a_rank_that_ended_already_is_left_to_those_who_wait_for_it():
    child = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE)
    child.wait()
    rendezvous.send_config(child, "x: 1")
    child.stdin.close()


def test_nobody_else_reads_the_standard_input(monkeypatch):
    monkeypatch.delenv(rendezvous.STARTED, raising=False)
    monkeypatch.setattr(os, "read", None)
    rendezvous.receive_config()
