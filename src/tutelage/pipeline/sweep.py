"""Callback of multiruns: their folder, names of jobs, tables of results and failures."""

import os
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from tutelage.compat.hydra import job_result
from tutelage.errors import is_users
from tutelage.runtime import distributed, masking
from tutelage.runtime.files import write_atomically
from tutelage.runtime.json_files import read_json
from tutelage.runtime.sweep_workers import stop_workers_first
from tutelage.runtime.text import in_a_line

_GOES_ON = "jobs that were submitted go on without this command: tutelage status {}"


@dataclass
class Multirun:
    """The multirun that this process launched, or none.

    Attributes:
        folder: of its jobs; None where a command line is one job.
        traceback_file: of the first job that ended in an unforeseen error, which is the one that Hydra raises.
    """

    folder: Path | None = None
    traceback_file: Path | None = None


multirun = Multirun()  # Hydra makes the callback by its name, and the command line asks after it


class MultirunCallback(Callback):
    """Records where the jobs of a multirun are, and names their folders by what varies among them.

    Hydra calls it in the launching process, with any launcher.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Records the multirun's folder before its first job."""
        folder = multirun.folder = Path(str(config.hydra.sweep.dir)).absolute()
        folder.mkdir(parents=True, exist_ok=True)  # a sweeper's database may be there
        elsewhere = "submitit" in config.hydra.launcher._target_
        stop_workers_first(folder, _GOES_ON.format(folder) if elsewhere else "")
        lines: dict[str, list[str]] = OmegaConf.to_container(config.hydra.overrides)  # type: ignore[assignment]
        constant = ",".join(f"'{key}'" for key in same(lines["task"]))
        quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
        given = [one for one in lines["hydra"] if not one.startswith("hydra.sweep.dir=")]
        # every job's config is composed again from these, maybe on another machine
        with read_write(config), open_dict(config):
            config.hydra.overrides.hydra = [
                *given, f"hydra.job.config.override_dirname.exclude_keys=[{constant}]", f"hydra.sweep.dir='{quoted}'"
            ]  # fmt: skip

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hides secrets in what Hydra has written of the command line."""
        masking.mask_logs()
        folder = Path(str(config.hydra.runtime.output_dir))
        if config.hydra.output_subdir is not None:
            masking.clean((folder / config.hydra.output_subdir).glob("*.yaml"))
        if multirun.folder is not None:
            masking.clean([multirun.folder / "multirun.yaml"])

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Hides secrets in the command line that Hydra prints when a job has failed."""
        job_return.overrides = masking.hidden(list(job_return.overrides or []))
        error = job_result(job_return)
        if job_return.status == JobStatus.FAILED and not is_users(error):
            text, path = "".join(traceback.format_exception(error)), Path(str(config.hydra.runtime.output_dir))
            with suppress(OSError):  # a full disk may be the error itself
                write_atomically(path / "traceback.txt", masking.hide(text).encode())
                multirun.traceback_file = multirun.traceback_file or path / "traceback.txt"

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints the comparison of the jobs, and hides secrets in files of a multirun without jobs."""
        masking.clean([Path(str(config.hydra.sweep.dir)) / "multirun.yaml"])
        print(comparisons(sys.stdout), end="")


def given(config: Any) -> list[str]:
    """Returns the job's overrides as they were given, with ``${…}`` unresolved.

    Args:
        config: Hydra's own, with ``overrides.task``.
    """
    return [str(one) for one in cast(list[Any], OmegaConf.to_container(config.overrides.task, resolve=False))]


def same(overrides: Iterable[str]) -> list[str]:
    """Returns the keys and groups for which the command line gives one value, whatever their package."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = {one.key_or_group for one in parsed if one.is_sweep_override()}
    return sorted({one.key_or_group for one in parsed} - swept)


def comparisons(stream: TextIO) -> str:
    """Returns a table of the multirun's complete jobs for ``stream``; empty if none has trained a student."""
    folder = multirun.folder
    if folder is None or not folder.is_dir() or not distributed.is_main():
        return ""
    from tutelage.evaluation.table import multirun_table
    from tutelage.runtime.status import terminal

    found = {}
    for path in sorted(_of_equal_length(folder).rglob("metrics.json"), key=str):
        with suppress(OSError, ValueError):  # `status` and `report` name damaged files
            metrics = read_json(path)
            if isinstance(metrics, dict) and metrics.get("schema") == 1 and "student" in metrics:
                found[in_a_line(os.path.relpath(path.parent, folder))] = metrics
    if not found:
        return ""
    console = terminal(stream)
    with console.capture() as text:
        console.print(multirun_table(found))
    return f"{text.get()}{folder}\n"


def _of_equal_length(folder: Path) -> Path:
    """Returns where a multirun's runs are that can be compared: of successive halving the fresh seeds or last rung."""
    if not (folder / "rungs.csv").is_file():
        return folder
    rungs = sorted(folder.glob("rung[0-9]*"), key=lambda path: int(path.name[4:]), reverse=True)
    return next((path for path in (folder / "fresh", *rungs) if any(path.glob("*/metrics.json"))), folder)


def failures() -> str:
    """Returns a table of a multirun's failed jobs; empty if there are none, or it was no multirun."""
    folder = multirun.folder
    if folder is None or not folder.is_dir():
        return ""
    from tutelage.runtime.status import jobs, table, terminal

    found = list(jobs(folder))
    bad = [one for one in found if one.state != "COMPLETE"]
    if not bad:
        return ""
    console = terminal(sys.stderr)
    with console.capture() as text:
        console.out(comparisons(sys.stderr), end="", highlight=False)
        console.print(table(bad, Path.cwd()))
        console.print(f"{len(bad)} of {len(found)} jobs did not complete; to go on with them: hydra.sweep.dir={folder}")
    return text.get()
