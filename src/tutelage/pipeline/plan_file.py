"""Writes ``plan.yaml``: the resolved config of every training of a job, who teaches whom, and from which files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tutelage.config.plan import JobPlan
from tutelage.evaluation.results import Trained
from tutelage.pipeline.teachers import TeacherSetup
from tutelage.runtime.files import write_atomically
from tutelage.runtime.masking import hidden

NAME = "plan.yaml"
_PARTS = (
    "seed", "network", "data", "loss", "optimizer", "scheduler", "trainer", "callbacks", "logger", "compile", "graph",
)  # fmt: skip


def write_plan(folder: Path, plan: JobPlan, teaching: TeacherSetup, control: Trained, student: DictConfig) -> None:
    """Writes what a job trains, as it trains it, into its folder; secrets are hidden as in ``config.yaml``.

    Args:
        folder: of the job.
        plan: of the job.
        teaching: has the files of the networks that teach.
        control: found or trained.
        student: the config of the student's training, its sources as it reads them: live or from disk.
    """
    teachers = {
        f"{one.source} {number}" if len(plan.teachers) > 1 else one.source: {
            "source": one.source,
            "given": one.checkpoint or ("as it is built" if one.ready else None),
            "artifact": _name(found),
            "config": _config(one.training),
        }
        for number, (one, found) in enumerate(zip(plan.teachers, teaching.found, strict=True), start=1)
    }
    between = {**teaching.chain, teaching.last: teaching.teacher}
    assistants = {
        name: {"artifact": _name(made.folder), "config": _config(own)}
        for name, own in plan.assistants.items()
        if (made := between[name]) is not None
    }
    document: Mapping[str, Any] = {
        "teachers": teachers,
        "assistants": assistants,
        "control": {"artifact": _name(control.folder), "config": _config(plan.control)},
        **({"phases": {name: _config(own) for name, own in plan.phases.items()}} if plan.phases else {}),
        "student": {
            "taught_by": OmegaConf.to_container(teaching.stage.sources, resolve=True),
            "config": {**_config(student), "sources": OmegaConf.to_container(student.sources, resolve=True)},
        },
    }
    write_atomically(folder / NAME, OmegaConf.to_yaml(OmegaConf.create(hidden(document))).encode())


def _name(folder: Path) -> str:
    """Returns the kind and the digest of an artifact."""
    return f"{folder.parent.name}/{folder.name}"


def _config(stage: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(stage, resolve=True)
    return {part: plain[part] for part in _PARTS}
