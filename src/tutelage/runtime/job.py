"""Runs a job in its folder: status, signals, environment."""

import logging
import os
import secrets
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tutelage.errors import TutelageError, explain
from tutelage.runtime import distributed, identity, manifest, slurm
from tutelage.runtime.config_differences import differences
from tutelage.runtime.files import locked, recipe_digest, remove_temporary_files, write_atomically
from tutelage.runtime.json_files import overwrite_json, read_json, write_json
from tutelage.runtime.masking import hidden
from tutelage.runtime.provenance import provenance
from tutelage.runtime.signals import INTERRUPTED, PREEMPTED, exit_code, reason, requests, sigterm_ends
from tutelage.runtime.sweep_workers import in_worker

log = logging.getLogger(__name__)


BEAT = 10.0  # seconds between heartbeats
PATIENCE = 10.0  # seconds for the workers of a killed process to end, which hold its lock
# files in a finished job's folder on which its metrics depend; artifacts and weights have manifests of their own
_KEPT = (
    "config.yaml", "config.digest", "plan.yaml", "identity.json", "provenance.json", "artifacts.json", "metrics.json",
    "signals.json", "tensorboard/**/*", "checkpoints/manifest.json",
)  # fmt: skip


Extends = Callable[[Path, DictConfig], bool]


def _never(folder: Path, cfg: DictConfig) -> bool:
    return False


class FinishedMeanwhileError(TutelageError):
    """Another process finished the run in the folder that this one waited for."""


@contextmanager
def job(cfg: DictConfig, folder: Path, overrides: list[str], extends: Extends = _never) -> Iterator[None]:
    """Keeps ``status.json`` true: RUNNING, then COMPLETE, FAILED or PREEMPTED, whatever happens inside.

    Args:
        cfg: the composed config; its resolved form is written to ``config.yaml``.
        folder: the job's folder.
        overrides: the command line, for the record.
        extends: says whether a config is that of the folder's run but for a greater length, with which it may go on.

    Raises:
        TutelageError: the folder belongs to a run with another config, or another process is at work in it.
        FinishedMeanwhileError: another process was, and has finished.
        SystemExit: with 143 after a SIGTERM, with 130 after Ctrl-C.
    """
    if not distributed.is_main():
        with sigterm_ends():
            yield
        return
    before = state(folder)
    with in_worker(), _alone(folder):
        if before != "COMPLETE" and state(folder) == "COMPLETE":
            raise FinishedMeanwhileError(f"another process has just finished a run in {folder}: choose another folder")
        for part in ("", "checkpoints/", "checkpoints/*/"):
            remove_temporary_files(folder, f"{part}.*.tmp")
        with track_status([init_run_dir(cfg, folder, overrides, extends)], "COMPLETE"):
            (folder / manifest.NAME).unlink(missing_ok=True)
            yield
            manifest.write(folder, _KEPT)


@contextmanager
def short_job(cfg: DictConfig, folder: Path, overrides: list[str]) -> Iterator[None]:
    """Context manager of a :func:`job` that trains nothing: bad input leaves no folder, where there was none.

    Folders of a multirun stay, for its table of failures.
    """
    new = _is_new(folder)
    try:
        with job(cfg, folder, overrides):
            yield
    except TutelageError:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _is_new(folder: Path) -> bool:
    """Checks whether a single job's folder holds only what Hydra has written, and nobody works in it."""
    if not HydraConfig.initialized() or Path.cwd().is_relative_to(folder):
        return False
    hydra = HydraConfig.get()
    written = {hydra.output_subdir, f"{hydra.job.name}.log"}
    return hydra.mode == RunMode.RUN and {path.name for path in folder.iterdir()} <= written


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Context manager that locks a folder until the process ends: two trainings would mix their states."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder / ".lock", PATIENCE))
        except Timeout:
            raise TutelageError(f"another process is running in {folder} (see its status.json)") from None
        yield


@contextmanager
def track_status(folders: Sequence[Path], after: str) -> Iterator[None]:
    """Context manager that keeps ``status.json`` of jobs that run together; ``after`` is their state on success."""
    started = {"started": _now(), "pid": os.getpid(), "host": socket.gethostname()}

    def end(state: str, why: str | None = None) -> None:
        document = {"state": state, "why": why, "ended": _now(), **started}
        for folder in folders:
            _end(folder / "status.json", document)

    for folder in folders:
        write_json(folder / "status.json", {"state": "RUNNING", **started})
    try:
        with sigterm_ends(), _heart(folders):
            yield
    except SystemExit as stop:
        preempted = stop.code in (PREEMPTED, INTERRUPTED) or type(stop).__name__ == "SIGTERMException"
        if not preempted:
            end("FAILED", f"exit {stop.code}")
            raise
        code, why = exit_code(), reason()
        end("PREEMPTED", why)
        log.warning(
            "stopped by %s, exit code %d; to resume, run the same command with %s", why, code, _same_place(folders[0])
        )
        slurm.queue_again(requests.came(signal.SIGUSR1))
        raise SystemExit(code) from stop
    except BaseException as error:
        end("FAILED", (explain(error) or type(error).__name__).splitlines()[0])
        raise
    end(after)


def _end(path: Path, document: Mapping[str, Any]) -> None:
    """Writes how a job ended, even on a full disk; if that fails, the job is shown as DEAD."""
    try:
        write_json(path, document)
    except OSError:
        try:
            overwrite_json(path, document)
        except OSError as error:
            log.error("%s can't be written: %s", path, explain(error))
            if document["state"] not in ("FAILED", "PREEMPTED"):  # these are raised unchanged
                raise


def _same_place(folder: Path) -> str:
    """Returns the override with which the same command finds this job, or its multirun, again."""
    several = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    return f"hydra.sweep.dir='{HydraConfig.get().sweep.dir}'" if several else f"hydra.run.dir='{folder}'"


def init_run_dir(cfg: DictConfig, folder: Path, overrides: list[str], extends: Extends = _never) -> Path:
    """Makes ``folder`` the job's: its config and what it ran on are written there.

    Raises:
        TutelageError: the folder belongs to a run with another config.
    """
    _write_config(cfg, folder, extends)
    write_json(folder / "provenance.json", provenance(overrides))
    return folder


def is_complete(cfg: DictConfig, folder: Path) -> bool:
    """Checks whether an earlier attempt with the same config finished in ``folder``."""
    return state(folder) == "COMPLETE" and _holds(folder, _resolved(cfg)[1]) is True


def _resolved(cfg: DictConfig) -> tuple[dict[str, Any], str]:
    """Returns the config as plain values, and the digest of the part that affects the result."""
    resolved: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return resolved, recipe_digest(identity.essential(resolved))


def _write_config(cfg: DictConfig, folder: Path, extends: Extends) -> None:
    """Writes the resolved config, or finds that an earlier attempt wrote the same (or got nowhere)."""
    folder.mkdir(parents=True, exist_ok=True)
    resolved, digest = _resolved(cfg)
    marker = folder / "config.digest"
    unused = state(folder) == "FAILED" and not (folder / "checkpoints").exists()  # such as a refused config
    if _holds(folder, digest) is False and not unused and not extends(folder, cfg):
        raise TutelageError(
            f"{folder} holds a run with another config ({differences(folder / 'config.yaml', hidden(resolved))}); "
            "choose another hydra.run.dir"
        )
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(hidden(resolved))).encode())
    write_atomically(marker, digest.encode())
    if not (folder / "run.id").is_file():  # for services that keep runs: folders may have equal names
        write_atomically(folder / "run.id", secrets.token_hex(6).encode())


def _holds(folder: Path, digest: str) -> bool | None:
    """Checks whether a folder belongs to a config; None where it belongs to none yet.

    ``config.yaml`` and ``config.digest`` say the same: where one of them is lost or damaged, the other decides.
    """
    marker, config = folder / "config.digest", folder / "config.yaml"
    if not marker.exists() and not config.exists():
        return None
    try:
        if marker.is_file() and marker.read_bytes().strip() == digest.encode():
            return True
        written: Any = OmegaConf.to_container(OmegaConf.load(config))
        return isinstance(written, dict) and recipe_digest(identity.essential(written)) == digest
    except (OSError, ValueError, TypeError, yaml.YAMLError, OmegaConfBaseException):
        return False


def state(folder: Path) -> str | None:
    """Returns the state in ``status.json``; None where the file is missing or unreadable."""
    try:
        return str(read_json(folder / "status.json")["state"])
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def _nothing(folder: Path) -> Mapping[str, Any]:
    return {}


class SignOfLife:
    """Gives the heartbeat of this process's job the figures of the training that runs at the moment."""

    figures: Callable[[Path], Mapping[str, Any]] = staticmethod(_nothing)

    def show(self, figures: Callable[[Path], Mapping[str, Any]]) -> None:
        """Adds what ``figures`` returns to the job's heartbeat from now on."""
        self.figures = figures


sign_of_life = SignOfLife()


@contextmanager
def _heart(folders: Sequence[Path]) -> Iterator[None]:
    """Context manager that writes ``heartbeat.json`` every ten seconds: it tells a killed job from a running one."""
    stopped = threading.Event()

    def beat() -> None:
        while True:
            try:
                for folder in folders:
                    document = {"time": time.time(), "progress": dict(sign_of_life.figures(folder))}
                    write_json(folder / "heartbeat.json", document, durable=False)
            except (OSError, RuntimeError, ValueError) as error:  # an error here must not end the job
                log.debug("heartbeat can't be written: %s", error)
            if stopped.wait(BEAT):
                return

    sign_of_life.show(_nothing)
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
