"""Trains a job's student: in one training, or in phases that go on from each other's weights."""

from pathlib import Path

from omegaconf import DictConfig

from tutelage.checkpoints.weights import load_into
from tutelage.config import factory
from tutelage.config.plan import JobPlan, replaced
from tutelage.config.turns import training_data
from tutelage.data.module import Data
from tutelage.pipeline import fit
from tutelage.pipeline.student_start import started
from tutelage.pipeline.teacher_cache import cached
from tutelage.pipeline.teachers import TeacherSetup
from tutelage.training.distillation import DistillationModule

PHASES = "phases"  # the folder of those before the last one


def train_student(plan: JobPlan, student: DictConfig, teaching: TeacherSetup, data: Data, folder: Path) -> None:
    """Trains the student into ``checkpoints`` of the run's folder, earlier phases into ``checkpoints/phases/<name>``.

    A phase that is finished is not trained again: after a stop the next one begins as it would have.

    Args:
        plan: of the job.
        student: the config of the last phase, its sources as it reads them.
        teaching: the teachers.
        data: the student's, loaded.
        folder: of the run.
    """
    checkpoints, before = folder / "checkpoints", None
    for name, own in plan.phases.items():
        of_phase = data if own.data == plan.student.data else factory.data(own)
        live = replaced(own, {"sources": teaching.stage.sources})
        place = checkpoints / PHASES / name
        _train(cached(live, plan.artifacts, of_phase), f"student_{name}", place, of_phase, teaching, folder, before)
        before = place
    _train(student, "student", checkpoints, data, teaching, folder, before)


def _train(
    stage: DictConfig, name: str, place: Path, data: Data, teaching: TeacherSetup, folder: Path, before: Path | None
) -> None:
    """Runs one training of the student, from the weights in the folder ``before``, or its first ones."""

    def module() -> DistillationModule:
        made = factory.distillation_module(stage, data, factory.sources(stage), teaching.record())
        made.about["stage"] = name
        if before is None:
            return started(made, teaching.stage.sources)
        load_into(made.student.net.net, before / "last.safetensors")
        return made

    fit.run(stage, name, place, folder / "tensorboard", training_data(stage, data), module)
