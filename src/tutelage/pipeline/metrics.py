"""Builds ``metrics.json``: cost and metrics of teacher, control and student."""

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig

from tutelage.data.module import Data
from tutelage.evaluation.absent import absent_figures
from tutelage.evaluation.predictions import combined_predictions
from tutelage.evaluation.results import SPLITS, WEIGHTS, Trained
from tutelage.pipeline.teachers import TeacherSetup
from tutelage.tasks.base import Task
from tutelage.tasks.predictions import TRAIN, as_saved


def metrics_document(
    cfg: DictConfig,
    found: Mapping[str, Trained | None],
    teaching: TeacherSetup,
    data: Data,
    task: Task,
    peers: Mapping[str, Trained] = MappingProxyType({}),
) -> dict[str, Any]:
    """Returns the document of ``metrics.json``: schema 1, described in docs/runs.md.

    Args:
        cfg: the job's config.
        found: the finished trainings by role: teacher (None without one of its own), control, student.
        teaching: has the assistants and which of the teacher's weights teach.
        data: has the classes that no training example has.
        task: whose figures they are.
        peers: the networks that were trained in the student's steps, by their folder.
    """
    document: dict[str, Any] = {"schema": 1, "seed": cfg.seed, "task": task.figure_kinds.document()}
    teacher = found["teacher"]
    for one in (*teaching.chain.values(), *filter(None, [teacher])):
        if "specialists" in one.facts:
            document["specialists"] = one.facts["specialists"]
    if teaching.chain:
        document["chain"] = {name: _entry(task, trained) for name, trained in teaching.chain.items()}
    for role, trained in found.items():
        if trained is not None:
            document[role] = _entry(task, trained, None if role == "teacher" else teacher, teaching.weights)
    document |= {"peers": {name: _entry(task, trained) for name, trained in peers.items()}} if peers else {}
    if data.absent and len(data.absent) < data.num_outputs:
        for role, kind in itertools.product(("control", "student"), WEIGHTS):
            val, test = (found[role].logits_on(kind, split) for split in SPLITS)  # type: ignore[union-attr]
            document[role][kind]["absent"] = absent_figures(val, test, data.absent)
    if task.has_classes and task.keeps_logits:
        document |= _means(task, found["student"], teaching.generations(), list(peers.values()))
    both = [kind for kind in found["student"].kinds if kind in found["control"].kinds]  # type: ignore[union-attr]
    document["gain"] = {kind: _gain(document["student"][kind], document["control"][kind]) for kind in both}
    return document


def _gain(student: Mapping[str, Any], control: Mapping[str, Any]) -> dict[str, float]:
    """Returns the differences of all figures on test that both have."""
    taught, alone = student["test"], control["test"]
    return {key: taught[key] - alone[key] for key in alone if key != "count" and key in taught}


def _means(task: Task, student: Trained | None, generations: list[Trained], peers: list[Trained]) -> dict[str, Any]:
    """Returns the metrics of means over the student and its generations, and over the student and its peers."""
    others = {"generations": generations, "mean_of_peers": peers}
    return {name: _of_mean(task, [*own, *filter(None, [student])]) for name, own in others.items() if own}


def _of_mean(task: Task, networks: list[Trained]) -> dict[str, Any]:
    """Returns the metrics of the mean probabilities of several networks: all born-again students, or all peers."""
    document: dict[str, Any] = {"count": len(networks)}
    for kind in WEIGHTS:
        document[kind] = {
            split: task.figures(as_saved(combined_predictions([one.logits_on(kind, split) for one in networks])))
            for split in SPLITS
        }
    return document


def _entry(task: Task, trained: Trained, teacher: Trained | None = None, weights: str = "last") -> dict[str, Any]:
    """Returns one network's entry of ``metrics.json``: cost, and the metrics of both weights on both splits."""
    facts = {key: trained.facts[key] for key in ("parameters", "multiply_adds", "seconds", "epochs")}
    entry: dict[str, Any] = {"reused": trained.reused, "made": trained.made, "digest": trained.digest, **facts}
    for kind in trained.kinds:
        entry[kind] = {"epoch": trained.facts["epoch"][kind]}
        for split in SPLITS:
            beside = teacher.predictions[weights, split] if teacher else None
            entry[kind][split] = trained.figures(task, kind, split, beside)
        if (kind, TRAIN) in trained.predictions:
            beside = teacher.predictions.get((weights, TRAIN)) if teacher else None
            entry[kind][TRAIN] = trained.figures(task, kind, TRAIN, beside)
    return entry
