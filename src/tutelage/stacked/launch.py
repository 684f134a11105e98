"""Trains stackable jobs of a multirun together; each job then runs and reuses its trained student."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import CompactHydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tutelage.config import factory
from tutelage.config.plan import replaced, settled
from tutelage.config.validate import check
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.pipeline import artifacts, fit, tensorboard_runs
from tutelage.pipeline.supervised import recipe
from tutelage.pipeline.teacher_cache import cached
from tutelage.pipeline.teachers import TeacherSetup, prepare_teachers
from tutelage.runtime import identity, manifest
from tutelage.runtime.files import recipe_digest
from tutelage.runtime.job import init_run_dir, is_complete, track_status
from tutelage.runtime.messages import quiet
from tutelage.sources.base import Source
from tutelage.stacked import plan
from tutelage.stacked.memory import most_that_fit
from tutelage.stacked.module import Learner
from tutelage.stacked.owner import free
from tutelage.stacked.plan import Job
from tutelage.stacked.train import MismatchError, place, sort_learners, train
from tutelage.training import loggers
from tutelage.training.module import SupervisedModule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Limits of the size of a stack.

    Attributes:
        max_jobs: greatest number of jobs in a stack; None: as many as fit into memory.
        max_macs: multiply-adds of a student's batch above which a CPU trains jobs one by one; None: no limit.
    """

    max_jobs: int | None
    max_macs: float | None


def train_together(jobs: Sequence[Job], limits: Limits) -> None:
    """Trains stackable controls and students together and stores them where their jobs look for them.

    Logs which trainings were stacked and why the rest were not.
    """
    quiet()
    reasons: Counter[str] = Counter()
    for group in plan.group_stackable(job for job in jobs if not is_complete(job.plan.config, job.folder)):
        if reason := plan.refusal(group[0].plan):
            reasons[reason] += len(group)
        elif len(group) == 1:
            reasons["no other job differs in stackable values only"] += 1
        else:
            with free(group) as own:
                if others := len(group) - len(own):
                    reasons["another process is running in its folder"] += others
                if own:
                    _train_group(own, limits, reasons)
    for reason, count in reasons.items():
        log.info("%d training%s not stacked: %s", count, "s" if count > 1 else "", reason)


def _train_group(jobs: Sequence[Job], limits: Limits, reasons: Counter[str]) -> None:
    with track_status([init_run_dir(job.plan.config, job.folder, job.overrides) for job in jobs], "WAITING"):
        try:
            _Group(jobs, limits, reasons).train()
        except (TutelageError, CompactHydraException) as error:  # each job will report it itself
            reasons[str(error).splitlines()[0]] += len(jobs)


def planned(cfg: DictConfig, hydra: Any, folder: Path, overrides: list[str]) -> Job | None:
    """Returns a job with its plan; None if its config is invalid, which it reports when it runs itself.

    Args:
        cfg: the job's config, without Hydra's part.
        hydra: Hydra's part.
        folder: the job's folder.
        overrides: the job's overrides.
    """
    try:
        cfg = settled(cfg, hydra)
        return Job(check(cfg, overrides), folder, overrides, tensorboard_runs.of_job(hydra, folder))
    except (TutelageError, OmegaConfBaseException):
        return None


class _Group:
    """Jobs whose configs differ in stackable values only."""

    def __init__(self, jobs: Sequence[Job], limits: Limits, reasons: Counter[str]):
        self.jobs, self.limits, self.reasons = jobs, limits, reasons
        self.plan = jobs[0].plan
        self.artifacts = self.plan.artifacts
        self.states = jobs[0].folder.parent / ".stacks"

    def train(self) -> None:
        data = factory.data(self.plan.student)
        fit.check_stages(self.plan, data)
        teaching = prepare_teachers(self.plan, data)
        sources = cached(teaching.stage, self.artifacts, data).sources
        for job in self.jobs:
            identity.hold(job.folder, identity.of_run(job.plan.config, data.fingerprint(), teaching.digests()))
        whole = identity.of_run(self.plan.config, data.fingerprint(), teaching.digests())
        self.states /= recipe_digest(whole)  # a stack that began with other teachers is not resumed
        teachers = factory.sources(_with(self.plan.student, sources))
        students = [self._student(job, sources, teachers, data) for job in self.jobs]
        controls = self._missing_controls(data)
        work = {where: self.states / "controls" / where.name for where in controls}
        alone = [self._control(*controls[where], work[where], sources, teachers, data) for where in controls]
        self._train([*alone, *students], teachers, teaching, data)
        for where, folder in work.items():
            if (folder / manifest.NAME).is_file():
                self._publish(controls[where][1], folder)
        stacks = self.states.parent
        if stacks.is_dir() and not any(path.is_file() for path in stacks.rglob("*")):
            shutil.rmtree(stacks)  # every stack has removed its own files

    def _missing_controls(self, data: Data) -> dict[Path, tuple[Job, dict[str, Any]]]:
        """Returns the folder of each missing control → the first job that needs it, and its recipe."""
        found: dict[Path, tuple[Job, dict[str, Any]]] = {}
        for job in self.jobs:
            made_by = recipe(job.plan.control, "control", data)
            where = artifacts.place(self.artifacts, "control", made_by)
            if not artifacts.is_usable(where, artifacts.oldest(job.plan.config)):
                found.setdefault(where, (job, made_by))
        return found

    def _publish(self, made_by: dict[str, Any], folder: Path) -> None:
        def take(work: Path) -> None:
            shutil.copytree(folder, work, dirs_exist_ok=True)

        artifacts.make(self.artifacts, "control", made_by, take, artifacts.oldest(self.plan.config))
        shutil.rmtree(folder)

    def _student(self, job: Job, sources: DictConfig, teachers: Mapping[str, Source], data: Data) -> Learner:
        stage = _with(job.plan.student, sources)
        module = _dry_run(factory.distillation_module(stage, data, teachers, None), data)
        if job.runs and loggers.has_tensorboard(stage):
            job.runs.begin()
        return _learner(stage, module, "student", job.folder / "checkpoints", job.folder / "tensorboard")

    def _control(
        self,
        job: Job,
        made_by: dict[str, Any],
        folder: Path,
        sources: DictConfig,
        teachers: Mapping[str, Source],
        data: Data,
    ) -> Learner:
        """Returns the control; if possible as a student whose teachers have weight 0, so that it joins their stack."""
        stage = job.plan.control
        module = _dry_run(factory.supervised_module(stage, "control", data, None), data)
        beside, zeroed = _with(job.plan.student, sources), frozenset[str]()
        if all(stage[part] == beside[part] for part in ("network", "data", "scheduler", "trainer")):
            student = _dry_run(factory.distillation_module(beside, data, teachers, None), data)
            if (extra := plan.zero_teacher_terms(student, module)) is not None:
                student.about, student.optimizer = module.about, module.optimizer
                module, zeroed = student, extra
        return _learner(stage, module, "control", folder, folder / "tensorboard", zeroed)

    def _train(
        self, learners: Sequence[Learner], teachers: Mapping[str, Source], teaching: TeacherSetup, data: Data
    ) -> None:
        by_key: dict[str, list[Learner]] = {}
        for learner in learners:
            by_key.setdefault(plan.stack_key(learner.module, learner.stage), []).append(learner)
        for same in by_key.values():
            one = same[0].module
            if reason := plan.unfit(one, teachers, data) or plan.too_large(one, data, self.limits.max_macs):
                self.reasons[f"{_named(same)}: {reason}"] += len(same)
                continue
            for stack in self._stacks(same, data):
                self._one_stack(stack, teachers, teaching, data)

    def _stacks(self, learners: Sequence[Learner], data: Data) -> Iterator[list[Learner]]:
        """Yields the unfinished learners in stacks that fit into memory; a stack that was begun keeps its members."""
        most = self.limits.max_jobs or most_that_fit(learners[0].module, data)
        for stack in plan.cut(sort_learners(learners), most):
            if not place(self.states, stack).is_dir():
                stack = [one for one in stack if not (one.folder / manifest.NAME).is_file()]
            if stack:
                yield stack

    def _one_stack(
        self, stack: list[Learner], teachers: Mapping[str, Source], teaching: TeacherSetup, data: Data
    ) -> None:
        name = _named(stack)
        if len(stack) == 1:
            self.reasons[f"{name}: no other training can be stacked with it"] += 1
            return
        log.info("training %s as one", name)
        try:
            broken = train(stack[0].stage, stack, teachers, teaching.record(), data, self.states)
        except (MismatchError, TutelageError) as error:
            self.reasons[f"{name}: {error}"] += len(stack)
            return
        if broken:
            self.reasons[f"{name}: its loss is not finite"] += broken


def _dry_run(module: SupervisedModule, data: Data) -> SupervisedModule:
    module.dry_run(data)
    return module


def _with(stage: DictConfig, sources: DictConfig) -> DictConfig:
    return replaced(stage, {"sources": sources})


def _learner(
    stage: DictConfig,
    module: SupervisedModule,
    name: str,
    folder: Path,
    tensorboard_dir: Path,
    zeroed: frozenset[str] = frozenset(),
) -> Learner:
    at = loggers.place(stage, name, folder, tensorboard_dir)
    return Learner(stage, module, at, loggers.make(stage, at), zeroed)


def _named(learners: Sequence[Learner]) -> str:
    """Returns a text such as ``64 students, 4 controls``."""
    counts = Counter(learner.module.about["stage"] for learner in learners)
    return ", ".join(
        f"{count} {name}{'s' if count > 1 else ''}" for name, count in sorted(counts.items(), reverse=True)
    )
