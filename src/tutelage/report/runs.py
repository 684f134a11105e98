"""Reads the folders of runs. An unreadable run is still listed, with its problem as text."""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import TutelageError
from tutelage.report.documents import Documents
from tutelage.runtime import manifest
from tutelage.runtime.files import is_missing
from tutelage.runtime.json_shape import Form, check
from tutelage.runtime.status import JobStatus
from tutelage.tasks.figure_kinds import TaskFigures

_INSIDE = {"checkpoints", "tensorboard", "artifacts", ".hydra", "report"}  # contain no folders of runs
ROLES = ("teacher", "control", "student")
_FORMS: Mapping[str, Form] = {
    "status.json": {"state?": "a text", "why?": "a text", "ended?": "a text"},
    "hydra.yaml": {"hydra?": {"job?": {"config_name?": "a text"}, "runtime?": {"choices?": {}, "cwd?": "a text"}}},
    "config.yaml": {"stages?": {"teacher?": {}}},
    "provenance.json": {"command?": "a list of strings", "versions?": {"*?": "a text"}},
    "artifacts.json": {"*": {"folder?": "a text", "recipe?": {}}},
}
_FIGURES: Form = {"accuracy?": "a fraction", "agreement?": "a fraction", "ece?": "a fraction", "*?": "a number"}
_WEIGHTS: Form = {"val": _FIGURES, "test": _FIGURES, "train?": _FIGURES}
_NETWORK: Form = {
    "parameters": "a size", "multiply_adds?": "a size", "seconds": "a size", "last": _WEIGHTS, "best": _WEIGHTS,
    "average?": _WEIGHTS,
}  # fmt: skip
_DISTILLED: Form = {
    "task?": {"figures": {"*?": {}}},
    "student": _NETWORK,
    "control?": _NETWORK,
    "teacher?": _NETWORK,
    "chain?": {"*": _NETWORK},
}
_EVALUATED: Form = {
    "figures?": {"accuracy?": "a fraction", "*?": "a number"}, "split?": "a text", "about?": {"stage?": "a text"},
    "parameters?": "a size", "multiply_adds?": "a size", "checkpoint?": "a text", "weights?": "a text",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One job's folder.

    Attributes:
        folder: absolute.
        verb: distill, evaluate, cache …
        state: as in `tutelage status`, or UNKNOWN.
        problem: why it has no metrics; None if it has.
        overrides: key → text, without + and ~.
        choices: group → choice, as resolved by Hydra.
        config: the resolved config.
        metrics: ``metrics.json``.
        provenance: ``provenance.json``.
        artifacts: ``artifacts.json``.
        ended: time of its end, as in ``status.json``.
        cwd: the folder where it was started.
        verified: whether its files have checksums.
    """

    folder: Path
    verb: str = "distill"
    state: str = "UNKNOWN"
    problem: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    ended: str = ""
    cwd: Path = Path()
    verified: bool = False

    @property
    def figures(self) -> TaskFigures:
        """Returns the figures of the run's task."""
        return TaskFigures.of(self.metrics)

    @property
    def seed(self) -> int | None:
        """Returns the seed of control and student."""
        found = self.metrics.get("seed", self.config.get("seed", self.overrides.get("seed", 0)))
        return int(found) if re.fullmatch(r"-?[0-9]{1,18}", str(found)) else None

    def weights(self, role: str, chosen: str) -> str:
        """Returns which weights of a role are reported: those that a teacher taught with, else ``chosen``."""
        if role != "teacher":
            return chosen
        stages = self.config.get("stages") or {}
        return "best" if (stages.get("teacher") or {}).get("weights") == "best" else "last"

    def place(self, role: str) -> Path | None:
        """Returns the folder of a role's weights and predictions, even if the sweep was moved."""
        if role == "student":
            return self.folder / "checkpoints"
        if not (recorded := _inner(self.artifacts, role).get("folder")):
            return None
        told = Path(str(recorded))
        below = [above / "artifacts" / told.parent.name / told.name for above in self.folder.parents]
        within = self.folder / "checkpoints" / role  # a moving average is saved with the student
        return next((path for path in (self.cwd / told, *below, within) if path.is_dir()), None)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads every run in or below the folders, each once, in the order of their paths.

    Raises:
        TutelageError: a folder does not exist, or none has a run.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise TutelageError(f"no folder {str(folder)!r}")
        found |= dict.fromkeys(_below(folder.resolve()))
    if not found:
        links = sum(path.is_symlink() for folder in folders for path in folder.iterdir())
        said = (
            f"; a link is followed to a run's own folder alone, and none of the {links} there is one" if links else ""
        )
        raise TutelageError(f"no run in {', '.join(map(str, folders))}{said}")
    documents = Documents()
    return [read_run(folder, documents) for folder in found]


def _below(folder: Path) -> Iterator[Path]:
    """Yields the folders of runs in or below one; a link is followed to a run's own folder alone: never in circles."""
    try:
        inside = [entry.name for entry in os.scandir(folder) if entry.is_symlink() or entry.is_dir()]
        is_run = os.path.lexists(folder / "status.json") or (folder / ".hydra" / "overrides.yaml").is_file()
    except OSError:  # it may be a run, which is then listed with its problem
        inside, is_run = [], True
    if is_run:
        yield folder
        return
    for name in sorted(inside, key=_natural):
        place = folder / name
        if name in _INSIDE or name.startswith("."):
            continue
        if not place.is_symlink():
            yield from _below(place)
        elif os.path.isfile(place / "status.json"):
            yield place.resolve()


def _natural(name: str) -> tuple[int, str]:
    """Returns a sort key that puts job 2 of a sweep before job 10."""
    number = name.partition("-")[0]
    return (int(number), name) if number.isdecimal() and len(number) < 9 else (-1, name)


def read_run(folder: Path, documents: Documents | None = None) -> Run:
    """Reads the run of one folder; unreadable files are recorded as its problem, never raised."""
    problems: list[str] = []
    documents = documents or Documents()

    def read(name: str, kind: type = dict) -> Any:
        path = folder / name
        if is_missing(path):
            return kind()
        try:
            document = documents.read(path, kind)
            return check(document, _FORMS.get(path.name, {}), path.name) if kind is dict else document
        except TutelageError as error:
            problems.append(str(error))
            return kind()

    status, metrics, provenance = read("status.json"), read("metrics.json"), read("provenance.json")
    begun = _begun(provenance, read)
    state, why = status.get("state") or "UNKNOWN", status.get("why")
    if state != "COMPLETE" and not is_missing(folder / "status.json"):  # it may be dead or damaged
        job = JobStatus.read(folder)
        state, why = job.state, job.why
    if state == "COMPLETE":
        problems += [problem for problem in manifest.problems_of_run(folder) if problem not in problems]
    run = Run(
        folder=folder,
        verb=str(begun["verb"] or ("evaluate" if "checkpoint" in metrics else "distill")),
        state=state,
        overrides=parse_overrides(begun["overrides"]),
        choices=begun["choices"],
        config=read("config.yaml"),
        metrics=metrics,
        provenance=provenance,
        artifacts=read("artifacts.json"),
        ended=status.get("ended") or "",
        cwd=Path(begun["cwd"] or "."),
        verified=os.path.isfile(folder / manifest.NAME),
    )
    problem = _problem(run, why, problems)
    return Run(**{**vars(run), "problem": problem})


def _begun(provenance: Mapping[str, Any], read: Callable[[str, type], Any]) -> dict[str, Any]:
    """Returns how the run was started, from ``provenance.json``, which has a checksum, else from Hydra's files."""
    keys = {"verb": str, "overrides": list, "choices": dict, "cwd": str}
    if all(isinstance(provenance.get(key), kind) for key, kind in keys.items()):
        return {key: provenance[key] for key in keys}
    hydra = read(".hydra/hydra.yaml", dict).get("hydra")
    job, runtime = (_inner(_inner({"": hydra}, ""), key) for key in ("job", "runtime"))
    overrides, choices = read(".hydra/overrides.yaml", list), _inner(runtime, "choices")
    return {"verb": job.get("config_name"), "overrides": overrides, "choices": choices, "cwd": runtime.get("cwd")}


def _inner(node: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return found if isinstance(found := node.get(key), Mapping) else {}


def parse_overrides(lines: Iterable[Any]) -> dict[str, str]:
    """Parses overrides: ``["+a.b=1", "~c"]`` → ``{"a.b": "1", "c": ""}``."""
    parts = (str(line).partition("=") for line in lines)
    return {key.lstrip("+~"): value for key, _, value in parts}


def _problem(run: Run, why: str | None, problems: list[str]) -> str | None:
    if run.state == "UNKNOWN":
        return "it has no status.json"
    if run.state != "COMPLETE":
        return why or "it has not ended"
    if problems:
        return "; ".join(problems)
    if run.verb != "distill":
        return _odd(run.metrics, _EVALUATED)
    if not run.metrics:
        return "it has no metrics.json"
    if (schema := run.metrics.get("schema")) != 1:
        return f"metrics.json: expected schema 1, found {schema!r}"
    if "student" not in run.metrics:
        return "metrics.json has no student"
    if run.seed is None:
        return "its seed is not an integer"
    if bad := next(_not_finite({role: run.metrics.get(role) for role in ROLES}), None):
        return f"metrics.json: {bad} is not finite"
    return _odd(run.metrics, _DISTILLED) or _without_headline(run.metrics)


def _odd(metrics: Mapping[str, Any], form: Form) -> str | None:
    try:
        check(metrics, form, "metrics.json")
    except TutelageError as error:
        return str(error)
    return None


def _without_headline(metrics: Mapping[str, Any]) -> str | None:
    """Returns what is wrong with the figure that runs are compared by; None if each network has it."""
    try:
        headline = TaskFigures.of(metrics).headline
    except TutelageError as error:
        return str(error)
    for role in ROLES:
        for weights in ("last", "best"):
            for split in ("val", "test"):
                if metrics.get(role) and headline not in metrics[role][weights][split]:
                    return f"metrics.json: {role}.{weights}.{split} has no {headline}"
    return None


def _not_finite(node: Any, path: str = "") -> Iterator[str]:
    """Yields the paths of numbers that are NaN or infinite."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _not_finite(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, float) and not math.isfinite(node):
        yield path
