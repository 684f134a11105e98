"""A multirun whose jobs train together where they can; what each of them is after that is its own affair."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tutelage import artifacts, build
from tutelage.caching import cached
from tutelage.checks import check
from tutelage.data.base import ImageData
from tutelage.errors import TutelageError
from tutelage.job import alive, claim, is_complete, quiet
from tutelage.modules.supervised import SupervisedModule
from tutelage.sources.base import Source
from tutelage.stacked import plan
from tutelage.stacked.memory import most_that_fit
from tutelage.stacked.module import Learner
from tutelage.stacked.plan import Job
from tutelage.stacked.train import NotAlikeError, in_order, place, train
from tutelage.teachers import Teaching, engage
from tutelage.trainings import recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How much goes into a stack.

    Attributes:
        most_jobs: in one; None: as many as fit into memory.
        most_work: multiply-adds of a student's batch above which a CPU trains jobs one by one; None: no limit.
    """

    most_jobs: int | None
    most_work: float | None


def train_together(jobs: Sequence[Job], limits: Limits) -> None:
    """Trains controls and students that go together and leaves them where their jobs will look for them.

    Says which trainings are stacked, and of all others why not.
    """
    quiet()
    reasons: Counter[str] = Counter()
    for group in plan.alike(job for job in jobs if _is_sound(job) and not is_complete(job.cfg, job.folder)):
        if reason := plan.refusal(group[0].cfg):
            reasons[reason] += len(group)
        elif len(group) == 1:
            reasons["no other job differs from it in stackable values alone"] += 1
        else:
            with alive([claim(job.cfg, job.folder, job.overrides) for job in group], "TRAINED"):
                _Group(group, limits, reasons).train()
    for reason, count in reasons.items():
        log.info("%d training%s by itself: %s", count, "s each" if count > 1 else "", reason)


def _is_sound(job: Job) -> bool:
    """Whether the job may begin; one that may not says why when it is its turn."""
    try:
        check(job.cfg, job.overrides)
    except (TutelageError, OmegaConfBaseException):
        return False
    return True


class _Group:
    """Jobs whose configs are alike."""

    def __init__(self, jobs: Sequence[Job], limits: Limits, reasons: Counter[str]):
        self.jobs, self.limits, self.reasons = jobs, limits, reasons
        self.cfg = jobs[0].cfg
        self.artifacts = Path(self.cfg.paths.artifacts)
        self.states = jobs[0].folder.parent / ".stacks"

    def train(self) -> None:
        data = build.data(build.stage_config(self.cfg, "student"))
        try:
            teaching = engage(self.cfg, self.artifacts, data)
            sources = cached(teaching.stage, self.artifacts, data).sources
        except TutelageError as error:
            log.info("no stack: %s", error)  # each job meets it, and says so
            return
        self._controls(data, teaching)
        self._students(data, teaching, sources)
        if self.states.is_dir() and not any(path.is_file() for path in self.states.rglob("*")):
            shutil.rmtree(self.states)  # every stack took its own away

    def _controls(self, data: ImageData, teaching: Teaching) -> None:
        found: dict[str, tuple[DictConfig, dict[str, Any]]] = {}
        for job in self.jobs:
            stage = build.stage_config(job.cfg, "control")
            made_by = recipe(stage, "control", data)
            where = artifacts.place(self.artifacts, "control", made_by)
            if not where.is_dir():
                found[str(where)] = stage, made_by
        work = {name: self.states / "controls" / Path(name).name for name in found}
        learners = [
            self._learner(stage, "control", work[name], work[name] / "tensorboard", data, {})
            for name, (stage, _) in found.items()
        ]
        self._train("control", learners, {}, teaching, data)
        for name, (_, made_by) in found.items():
            if (work[name] / "stage.json").is_file():

                def take(folder: Path, done: Path = work[name]) -> None:
                    shutil.copytree(done, folder, dirs_exist_ok=True)

                artifacts.make(self.artifacts, "control", made_by, take)
                shutil.rmtree(work[name])

    def _students(self, data: ImageData, teaching: Teaching, sources: DictConfig) -> None:
        learners, teachers = [], None
        for job in self.jobs:
            stage = build.stage_config(job.cfg, "student")
            stage.sources = sources
            if teachers is None:
                teachers = build.sources(stage)
            folder, board = job.folder / "checkpoints", job.folder / "tensorboard"
            learners.append(self._learner(stage, "student", folder, board, data, teachers))
        self._train("student", learners, teachers or {}, teaching, data)

    @staticmethod
    def _learner(
        stage: DictConfig, name: str, folder: Path, board: Path, data: ImageData, teaching: Mapping[str, Source]
    ) -> Learner:
        module: SupervisedModule
        if name == "student":
            module = build.distillation_module(stage, data.num_classes, teaching, None)
        else:
            module = build.supervised_module(stage, name, data.num_classes, None)
        module.meet(data)
        best = {key: str(stage.callbacks.best[key]) for key in ("monitor", "mode")}
        return Learner(module, stage.data.seed, folder, build.loggers(stage, name, board), best)

    def _train(
        self,
        name: str,
        learners: Sequence[Learner],
        teachers: Mapping[str, Source],
        teaching: Teaching,
        data: ImageData,
    ) -> None:
        by_make: dict[str, list[Learner]] = {}
        for learner in learners:
            by_make.setdefault(plan.make(learner.module), []).append(learner)
        for same in by_make.values():
            one = same[0].module
            if reason := plan.unfit(one, teachers, data) or plan.too_much_work(one, data, self.limits.most_work):
                self.reasons[f"{name}: {reason}"] += len(same)
                continue
            for stack in self._stacks(same, data):
                self._one_stack(name, stack, teachers, teaching, data)

    def _stacks(self, learners: Sequence[Learner], data: ImageData) -> Iterator[list[Learner]]:
        """Those that are not finished, in stacks that fit; one that was begun keeps those that it began with."""
        most = self.limits.most_jobs or most_that_fit(learners[0].module, data)
        for stack in plan.cut(in_order(learners), most):
            if not place(self.states, stack).is_dir():
                stack = [one for one in stack if not (one.folder / "stage.json").is_file()]
            if stack:
                yield stack

    def _one_stack(
        self, name: str, stack: list[Learner], teachers: Mapping[str, Source], teaching: Teaching, data: ImageData
    ) -> None:
        if len(stack) == 1:
            self.reasons[f"{name}: there is one of its make"] += 1
            return
        stage = build.stage_config(self.cfg, name)
        log.info("training %d %ss as one", len(stack), name)
        try:
            broken = train(stage, stack, teachers, teaching.record(), data, self.states)
        except (NotAlikeError, TutelageError) as error:
            self.reasons[f"{name}: {error}"] += len(stack)
            return
        if broken:
            self.reasons[f"{name}: its loss is not finite"] += broken
