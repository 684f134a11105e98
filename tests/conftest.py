"""Shared fixtures: composed configs, the command line in its own process and in this one, and real data."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two workers share two cores, and sums keep their order
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

import pytest
from command import tutelage
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tutelage.cli import main as console
from tutelage.compat.hydra import compose_quickly
from tutelage.config import resolvers
from tutelage.config.paths import conf_dir
from tutelage.pipeline import sweep


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write tests/golden/*.json anew instead of comparing")


@pytest.fixture(scope="session", autouse=True)
def _resolvers() -> None:
    resolvers.register()
    compose_quickly()


@pytest.fixture
def compose(tmp_path: Path) -> Callable[..., DictConfig]:
    """``compose(*overrides, config="distill")`` → the config that a command line with these overrides would have."""

    def make(*overrides: str, config: str = "distill", folder: str = conf_dir()) -> DictConfig:
        with initialize_config_dir(folder, version_base="1.3"):
            return hydra_compose(config, overrides=[f"paths.outputs={tmp_path}/outputs", *overrides])

    return make


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``cli(*arguments, check=True)`` runs ``python -m tutelage`` in a process of its own, in ``tmp_path``."""
    return partial(tutelage, cwd=tmp_path)


@dataclass(frozen=True)
class Answer:
    """The outcome of a command line: exit code, message (what ``sys.exit`` was given, and stderr), stdout."""

    code: int
    message: str
    out: str


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Answer]]:
    """``main(*arguments)`` is the console script called in this process, which saves the seconds of importing torch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("TUTELAGE_DATA", raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(*arguments: str) -> Answer:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["tutelage", *arguments])
        monkeypatch.setattr(sweep, "multirun", sweep.Multirun())  # of an earlier call
        capsys.readouterr()
        code: object = 0
        whole = os.environ["HYDRA_FULL_ERROR"]
        try:
            console.main()
        except SystemExit as stop:
            code = stop.code
        finally:
            monkeypatch.setenv("HYDRA_FULL_ERROR", whole)  # the console script sets it for the life of its process
        out, err = capsys.readouterr()
        if isinstance(code, str):
            return Answer(1, code + err, out)
        return Answer(int(code or 0), err, out)  # type: ignore[call-overload]

    yield run
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for number, handler_of in signals.items():
        signal.signal(number, handler_of)
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder with MNIST and Fashion-MNIST, from the environment."""
    root = os.environ.get("TUTELAGE_DATA")
    if not root or not (Path(root) / "MNIST" / "raw").is_dir():
        pytest.skip("needs TUTELAGE_DATA=<folder with MNIST/raw and FashionMNIST/raw>")
    return Path(root).absolute()
