"""Reads the states of jobs from their folders, while they run and afterwards, and shows them as a table."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tutelage.errors import TutelageError, explain
from tutelage.runtime import manifest
from tutelage.runtime.files import file_system_time
from tutelage.runtime.json_shape import check, read_json_as
from tutelage.runtime.text import in_a_line

DEAD_AFTER = 60.0  # seconds without a heartbeat; a job writes one every ten
_COLOURS = {
    "COMPLETE": "green", "RUNNING": "cyan", "WAITING": "cyan", "PREEMPTED": "yellow", "FAILED": "red", "DEAD": "red",
    "DAMAGED": "red",
}  # fmt: skip

_PROGRESS = {
    "stage": "a text", "epoch": "a number", "epochs": "a number", "step": "a number", "steps": "a number",
    "seconds_left?": "a number", "best?": "a number", "percent?": "true or false",
}  # fmt: skip
_STATUS = {"state?": "a text", "why?": "a text", "host?": "a text", "pid?": "a whole number"}
_BEAT = {"time?": "a number", "progress?": "names with values"}
_METRICS = {"student?": {"best": {"val": {"*?": "a number"}}}, "task?": {"headline": "a text", "figures": {"*?": {}}}}


@dataclass(frozen=True)
class JobStatus:
    """A job's state as its folder records it.

    Attributes:
        folder: of the job.
        state: COMPLETE, RUNNING, WAITING (its stack is trained, the job itself comes later), PREEMPTED, FAILED, DEAD:
            marked as RUNNING or WAITING, but its process has ended or writes no heartbeat; or DAMAGED: a file can't be
            read.
        why: of a job that stopped; of a damaged one which file.
        progress: its last figures (:class:`tutelage.training.callbacks.heartbeat.Heartbeat`), or nothing.
        best: the headline (such as accuracy) on validation of the student's best weights, once it is complete.
    """

    folder: Path
    state: str
    why: str
    progress: dict[str, Any]
    best: float | None

    @staticmethod
    def read(folder: Path) -> "JobStatus":
        """From ``status.json``, ``heartbeat.json`` and ``metrics.json``; what can't be read is its ``why``."""
        try:
            return _read(folder)
        except (TutelageError, OSError) as error:
            return JobStatus(folder, "DAMAGED", explain(error), {}, None)


def _read(folder: Path) -> JobStatus:
    status = read_json_as(folder / "status.json", _STATUS)
    state, why = status.get("state"), status.get("why") or ""
    if state is None or state not in _COLOURS:
        raise TutelageError(f"status.json: expected one of the states {', '.join(_COLOURS)}; found {state!r}")
    beat = read_json_as(folder / "heartbeat.json", _BEAT) if (folder / "heartbeat.json").exists() else {}
    if progress := beat.get("progress") or {}:
        check({"progress": progress}, {"progress": _PROGRESS}, "heartbeat.json")
    if state in ("RUNNING", "WAITING") and (cause := _dead(status, folder)):
        state, why = "DEAD", cause
    best = None
    if state == "COMPLETE" and (found := manifest.problems_of_run(folder)):
        raise TutelageError("; ".join(found))
    if state == "COMPLETE" and (folder / "metrics.json").exists():
        metrics = read_json_as(folder / "metrics.json", _METRICS)
        task = metrics.get("task") or {"headline": "accuracy", "figures": {"accuracy": {"percent": True}}}
        progress = {**progress, "percent": (task["figures"].get(task["headline"]) or {}).get("percent", False)}
        if metrics.get("student"):  # evaluate has none
            best = metrics["student"]["best"]["val"].get(task["headline"])
    return JobStatus(folder, state, why, progress, best)


def _dead(status: dict[str, Any], folder: Path) -> str:
    """Returns why a job marked RUNNING or WAITING is dead; an empty string if it is alive.

    The age of its last sign of life is taken from the file system, whose clock is one for all machines.
    """
    pid = status.get("pid")
    if pid is not None and status.get("host") == socket.gethostname() and not _process_exists(pid):
        return f"process {pid} is gone"
    if status["state"] == "WAITING":  # its process runs other jobs and writes heartbeats in their folders
        return ""
    if not (beat := folder / "heartbeat.json").is_file():
        return ""
    silent = abs(file_system_time(folder) - beat.stat().st_mtime)  # less than 0: its clock was set back
    return f"no heartbeat for {_duration(silent)}" if silent > DEAD_AFTER else ""


def _process_exists(pid: int) -> bool:
    if pid <= 0:  # a group of processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def jobs(folder: Path) -> Iterator[JobStatus]:
    """Returns all jobs in ``folder`` or below it, by name; an unreadable folder counts as one.

    A link to a job's folder counts where it is not below ``folder`` anyway; other links are not followed.
    """
    unread: list[OSError] = []
    found: set[Path] = set()
    links: dict[Path, Path] = {}  # where a job's folder is → a link to it
    for place, folders, files in os.walk(folder, onerror=unread.append):
        if "status.json" in (*folders, *files):
            found.add(Path(place))
        for path in (Path(place, name) for name in sorted(folders)):
            if path.is_symlink() and os.path.isfile(path / "status.json"):
                links.setdefault(path.resolve(), path)
    real = {path.resolve() for path in found} if links else set()
    found |= {path for place, path in links.items() if place not in real}
    made = [JobStatus.read(path) for path in found]
    for error in unread:
        path = Path(error.filename)
        if isinstance(error, PermissionError) and not found & {path, *path.parents}:
            made.append(JobStatus(path, "DAMAGED", explain(error), {}, None))
    yield from sorted(made, key=lambda job: str(job.folder))


def table(found: list[JobStatus], root: Path) -> Table:
    """Returns a table with one row per job."""
    made = Table(box=box.SIMPLE_HEAD)
    for name in ("job", "state", "at", "left", "best on validation"):
        made.add_column(name, overflow="fold", no_wrap=name == "job")
    for one in found:
        name = os.path.relpath(one.folder, root)
        best = one.best if one.best is not None else one.progress.get("best")
        left = one.progress.get("seconds_left") if one.state == "RUNNING" else None
        made.add_row(
            _cell(name), f"[{_COLOURS[one.state]}]{one.state}[/]", _cell(one.why or _where(one)),
            "" if left is None else _duration(left), "" if best is None else _figure(best, one.progress),
        )  # fmt: skip
    return made


def _figure(value: float, progress: dict[str, Any]) -> str:
    """Returns a headline as text, in per cent where it is a fraction."""
    return f"{100 * value:.2f} %" if progress.get("percent", True) else f"{value:.4g}"


def _cell(text: str) -> str:
    """Text of unknown origin, which rich shall not read as markup, and no terminal as commands."""
    return escape(in_a_line(text))


def terminal(stream: TextIO) -> Console:
    """A console as wide as the terminal, but for one in which no table fits; in a file or a pipe wide enough."""
    console = Console(file=stream)
    console.width = max(console.width, 60) if stream.isatty() else 160
    return console


def _where(one: JobStatus) -> str:
    at = one.progress
    if not at or one.state == "COMPLETE":
        return ""
    return f"{at['stage']}: epoch {min(at['epoch'] + 1, at['epochs'])}/{at['epochs']}, step {at['step']}/{at['steps']}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
