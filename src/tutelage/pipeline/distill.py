"""The protocol of a distillation job: what is trained, in which order, and how the three are compared.

Teacher and control are artifacts: made once, whoever asks. The student belongs to the job. All three see the same
split; control and student share seed, first weights, order of examples, augmentation and budget, so that their
difference is the teacher's doing. Validation serves all choices; test is measured once, on the last and the best
weights.
"""

import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from tutelage.config import factory, moved
from tutelage.config.plan import JobPlan, plan_job, settled
from tutelage.config.source_nodes import trained_beside
from tutelage.config.validate import check, check_resolves
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.evaluation.results import Trained
from tutelage.evaluation.table import comparison, short_line
from tutelage.pipeline import artifacts, fit, sweep, tensorboard_runs
from tutelage.pipeline.extension import extends
from tutelage.pipeline.metrics import metrics_document
from tutelage.pipeline.plan_file import write_plan
from tutelage.pipeline.student_phases import train_student
from tutelage.pipeline.student_start import recipe_of_start, started
from tutelage.pipeline.supervised import recipe
from tutelage.pipeline.teacher_cache import cached
from tutelage.pipeline.teachers import prepare_teachers
from tutelage.pipeline.tensorboard import write_tensorboard
from tutelage.pipeline.try_out import try_out
from tutelage.runtime import distributed, identity, manifest, slurm
from tutelage.runtime.job import FinishedMeanwhileError, is_complete, job
from tutelage.runtime.json_files import read_json, write_json
from tutelage.runtime.messages import quiet
from tutelage.runtime.status import terminal
from tutelage.sources.base import Source
from tutelage.tasks.figure_kinds import TaskFigures
from tutelage.training import loggers

log = logging.getLogger(__name__)


def distill_job(cfg: DictConfig) -> float:
    """Runs one job of the command line; returns what sweepers maximise.

    That is the headline on validation of the student's best weights, negative where lower is better.
    """
    hydra = HydraConfig.get()
    metrics = run_job(cfg, sweep.given(hydra), Path(hydra.runtime.output_dir), _show)
    figures = TaskFigures.of(metrics)
    return figures.main.sign * metrics["student"]["best"]["val"][figures.headline]


def run_job(
    cfg: DictConfig,
    overrides: list[str],
    folder: Path,
    trained: Callable[[Mapping[str, Any], Path], None] = lambda metrics, folder: None,
) -> Mapping[str, Any]:
    """Checks, trains and compares in ``folder``; a complete run there is not changed.

    Args:
        cfg: the composed config.
        overrides: the overrides of its composition.
        folder: the run's.
        trained: called on the main process with the metrics and the folder, unless the run was complete before.

    Returns:
        The content of ``metrics.json``.

    Raises:
        TutelageError: something in the config, the data or the folder is wrong.
    """
    quiet()
    slurm.take_rank()
    distributed.check_environment(cfg.trainer)
    cfg = settled(cfg, HydraConfig.get())
    moved.warn_of_choices(overrides)
    config = check_resolves(cfg)
    if (found := _finished(cfg, config, folder)) is not None:
        return found
    try:
        with job(config, folder, overrides, lambda folder, _: extends(folder, cfg)):
            plan = check(cfg, overrides, config)
            with distributed.ranks(cfg, "distill", folder):
                metrics = distill(plan, folder)
    except FinishedMeanwhileError:
        if (found := _finished(cfg, config, folder)) is None:
            raise
        return found
    if distributed.is_main():
        trained(metrics, folder)
    return metrics


def _finished(cfg: DictConfig, config: DictConfig, folder: Path) -> Mapping[str, Any] | None:
    """Returns the metrics of a complete run of this config in the folder; None if there is none."""
    if not (is_complete(config, folder) and _is_whole(plan_job(cfg, config), folder)):
        return None
    log.info("already complete, nothing to do: %s", folder)
    found: dict[str, Any] = read_json(folder / "metrics.json")
    return found


def _show(metrics: Mapping[str, Any], folder: Path) -> None:
    """Prints the comparison; in a multirun only one line, as a table at its end compares all jobs."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        Console(soft_wrap=True).print(Text(f"{folder.name}: {short_line(metrics)}"))
        return
    terminal(sys.stdout).print(comparison(metrics))
    Console(soft_wrap=True).print(Text(str(folder), style="dim"))  # unwrapped, so that it can be copied


def _is_whole(plan: JobPlan, folder: Path) -> bool:
    """Checks a finished run's files against their checksums; sets damaged ones aside, to be made again.

    Raises:
        TutelageError: code, data or files that it was made with have changed since; names them.
    """
    if (folder / identity.NAME).is_file() and not manifest.problems(folder):
        data = factory.data(plan.student)
        changed = identity.changes(folder, identity.of_run(plan.config, data.fingerprint()))
        if [name for name in changed if not name.startswith("versions ")]:
            raise TutelageError(
                f"{folder} holds a finished run that was made with other contents of {', '.join(changed)}; choose "
                "another hydra.run.dir"
            )
        if changed:
            log.warning("%s was made with other %s", folder, ", ".join(changed))
    found = manifest.problems(folder)
    for name, problem in found.items():
        if (folder / name).exists():
            manifest.set_aside(folder / name, problem)
        else:
            log.warning("%s; it is made again", problem)
    return not found and not manifest.problems(folder / "checkpoints")


def cache_job(cfg: DictConfig) -> None:
    """Runs one job of `tutelage cache`: trains the teacher, writes its signals and prints their folder."""
    overrides = sweep.given(HydraConfig.get())
    folder = Path(HydraConfig.get().runtime.output_dir)
    cfg = settled(cfg, HydraConfig.get())
    moved.warn_of_choices(overrides)
    config = check_resolves(cfg)
    with job(config, folder, overrides):
        plan = check(cfg, overrides, config)
        data = factory.data(plan.student)
        try_out(plan, data)
        sources = cached(prepare_teachers(plan, data).stage, plan.artifacts, data).sources
        folders = {name: node.folder for name, node in sources.items() if node.get("folder")}
        if not folders:
            raise TutelageError("the loss reads no signal that could be cached: see sources=cached and loss.alpha")
        write_json(folder / "signals.json", folders)
    for place in folders.values():
        Console(soft_wrap=True).print(Text(str(place)))


def distill(plan: JobPlan, folder: Path) -> dict[str, Any]:
    """Trains or finds teacher, control and student; returns the content of ``metrics.json``."""
    config = plan.config
    L.seed_everything(config.seed, verbose=False)
    data = factory.data(plan.student)
    try_out(plan, data)
    teaching = prepare_teachers(plan, data)
    student, reference = cached(teaching.stage, plan.artifacts, data), teaching.record()
    if distributed.is_main():
        identity.hold(folder, identity.of_run(config, data.fingerprint(), teaching.digests()))
    control = _control(plan, data, reference, teaching.stage.sources)
    if distributed.is_main():
        write_plan(folder, plan, teaching, control, student)
    shown = loggers.has_tensorboard(config) and HydraConfig.initialized()
    runs = tensorboard_runs.of_job(HydraConfig.get(), folder) if shown else None
    if runs and distributed.is_main():
        runs.begin()
    train_student(plan, student, teaching, data, folder)
    taught = Trained.read(folder / "checkpoints", reused=False)
    found = {"teacher": teaching.teacher, "control": control, "student": taught}
    if (folder / "checkpoints" / "teacher").is_dir():  # a moving average exists only with the student
        found["teacher"] = Trained.read(folder / "checkpoints" / "teacher", reused=False)
    peers = {name: Trained.read(folder / "checkpoints" / name, reused=False)
             for name in trained_beside(student.sources) if (folder / "checkpoints" / name).is_dir()}  # fmt: skip
    task = factory.task(plan.student, data)
    metrics = metrics_document(config, found, teaching, data, task, peers)
    if distributed.is_main():
        chain = {f"chain.{name}": trained for name, trained in teaching.chain.items()}
        _collect(config, folder, {**chain, **found}, metrics)
        if loggers.has_tensorboard(config):
            write_tensorboard(folder / "tensorboard", plan.composed, found, metrics, data, teaching.weights)
        if runs:
            runs.finish()
    return metrics


def _control(plan: JobPlan, data: Data, reference: Source | None, sources: DictConfig) -> Trained:
    """Trains or finds the control: the student alone, with the same seed, initial weights, order and budget."""
    stage = plan.control

    def train(work: Path) -> None:
        fit.run(
            stage, "control", work, work / "tensorboard", data,
            lambda: started(factory.supervised_module(stage, "control", data, reference), sources),
        )  # fmt: skip

    made_by = recipe(stage, "control", data) | recipe_of_start(stage, sources)
    return Trained.read(*artifacts.make(plan.artifacts, "control", made_by, train, artifacts.oldest(plan.config)))


def _collect(cfg: DictConfig, folder: Path, found: Mapping[str, Trained | None], metrics: Mapping[str, Any]) -> None:
    """Collects the report's inputs in the run's folder: metrics, paths of artifacts, curves of all three.

    Loggers that keep runs on a service have an artifact's run where it was made; ``artifacts.json`` names it.
    """
    made: dict[str, Any] = {role: {"folder": str(trained.folder)} for role, trained in found.items() if trained}
    for entry in made.values():
        if (recipe := Path(entry["folder"]) / "recipe.json").is_file():
            entry["recipe"] = read_json(recipe)
        if (runs := Path(entry["folder"]) / loggers.RUNS).is_file():
            entry["runs"] = read_json(runs)
    write_json(folder / "artifacts.json", made)
    for trained in found.values():
        for name in {"tensorboard", *loggers.nodes(cfg)}:
            if trained and (curves := trained.folder / name).is_dir():
                for one in curves.iterdir():  # those of a shorter artifact, or of a damaged one, may be there
                    shutil.rmtree(folder / name / one.name, ignore_errors=True)
                shutil.copytree(curves, folder / name, dirs_exist_ok=True)
    write_json(folder / "metrics.json", metrics)
