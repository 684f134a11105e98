"""Builds the loggers of one training, Lightning's or your own, with their folder and name.

The arguments of a logger's constructor say what kind it is. One that writes files (TensorBoard, CSV) writes them beside
the training's weights; those of a shared artifact are copied into the folder of each job that uses it. One that keeps
runs (W&B, MLflow) keeps one run for each training, whose id is made of job and stage, in the folder of the job that
trains; :func:`training` ends it before the next begins. What the config gives is left as it is.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import get_object, instantiate
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from tutelage.compat.lightning import open_experiment
from tutelage.errors import TutelageError
from tutelage.runtime import distributed
from tutelage.runtime.json_files import read_json, write_json
from tutelage.runtime.masking import hidden
from tutelage.runtime.signatures import parameters

RUNS = "runs.json"  # in a training's folder: the runs that loggers keep of it
_RUN_ARGUMENTS = {"id", "run_id", "run_name", "project"}  # who takes one of these keeps runs
_OURS = ("id", "run_id", "version")  # equal for all trainings they would make one run of several
_LONGEST = 128  # characters that W&B takes for a name or a group
_HYPERPARAMETERS = ("seed", "network", "loss", "optimizer", "scheduler", "trainer")


@dataclass(frozen=True)
class LoggedRun:
    """The training whose curves are written.

    Attributes:
        stage: teacher, control, student …
        job: folder of the job that trains.
        folder: of the training's weights.
        tensorboard_dir: where files of curves go, each stage in a folder of its own.
    """

    stage: str
    job: Path
    folder: Path
    tensorboard_dir: Path

    @property
    def job_name(self) -> str:
        """The last two parts of the job's folder: a multirun and its job, or a day and a time."""
        return "/".join(self.job.absolute().parts[-2:])[-_LONGEST:]

    @property
    def run(self) -> str:
        """An id that no other training has, and that stays the same when this one goes on after a kill."""
        known = self.job / "run.id"
        job = known.read_text() if known.is_file() else _digest(str(self.job.absolute()))
        return f"{job}-{self.stage}-{_digest(str(self.folder.absolute()))[:6]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def place(stage: DictConfig, name: str, folder: Path, tensorboard_dir: Path) -> LoggedRun:
    """The place of the training ``name`` of a job; outside one, its curves' folder is taken for the job's."""
    run = stage.paths.get("run") if "paths" in stage else None
    return LoggedRun(name, Path(run) if run else tensorboard_dir.parent, folder, tensorboard_dir)


def make(stage: DictConfig, at: LoggedRun) -> list[Logger]:
    """The loggers of one training.

    Args:
        stage: the config as this training sees it.
        at: the training.

    Raises:
        TutelageError: the config gives an id, with which several trainings would be one run.
    """
    return [_made(key, node, at) for key, node in nodes(stage).items()]


def nodes(cfg: DictConfig) -> dict[str, DictConfig]:
    """The loggers of a config by name."""
    return {str(key): node for key, node in (cfg.get("logger") or {}).items() if node is not None}


def _made(key: str, node: DictConfig, at: LoggedRun) -> Logger:
    target = get_object(node._target_)
    offered = _of_runs(target, at, _known_run(at, key)) if keeps_runs(target) else _of_files(target, key, at)
    for name in _OURS:
        if name in node and name in offered:
            raise TutelageError(f"logger.{key}.{name}: every training needs a run of its own; leave it out")
    given = {name: value for name, value in offered.items() if name not in node}
    if isinstance(tags := node.get("tags"), DictConfig):
        given["tags"] = {name: str(value) for name, value in {**offered.get("tags", {}), **tags}.items()}
    made: Logger = instantiate(node, **given)
    return made


def keeps_runs(target: Any) -> bool:
    """Checks whether a class of loggers keeps runs on a service (W&B, MLflow); others write files."""
    return bool(parameters(target)[0] & _RUN_ARGUMENTS)


def _of_files(target: Any, key: str, at: LoggedRun) -> dict[str, Any]:
    """TensorBoard's files go to ``<tensorboard_dir>/<stage>``, others beside it to ``<name of the logger>/<stage>``."""
    names, _ = parameters(target)
    folder, version = at.tensorboard_dir, at.stage
    if not is_tensorboard(target):
        folder, attempt = at.tensorboard_dir.with_name(key), 1
        while (folder / version).exists():  # a CSVLogger would delete what an earlier attempt has written
            attempt += 1
            version = f"{at.stage}.{attempt}"
    files = {"save_dir": str(folder), "name": "", "version": version}
    if "version" not in names:
        files = {"save_dir": str(folder / version), "name": version}
    return {name: value for name, value in files.items() if name in names}


def _of_runs(target: Any, at: LoggedRun, known: str | None) -> dict[str, Any]:
    """``known``: the run that an earlier attempt at this training has begun, where the service chooses the ids."""
    names, takes_others = parameters(target)
    tracked = "tracking_uri" in names
    label = f"{at.job_name}/{at.stage}"[-_LONGEST:]
    offered: dict[str, Any] = {
        "save_dir": str(at.job / "mlruns" if tracked else at.job), "id": at.run, "name": label, "run_name": label,
        "tags": {"job": at.job_name, "stage": at.stage, "run": at.run}, "group": at.job_name, "job_type": at.stage,
    }  # fmt: skip
    if known is not None:
        offered["run_id"] = known
    if tracked:  # MLflow 3 wants to be told that files are meant, not a data base
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    if takes_others and {"id", "experiment"} <= names:  # W&B's hands the rest to wandb.init, whose tags are a list
        names = names | {"group", "job_type", "reinit"}
        offered["reinit"] = "create_new"  # or it would write into a run that is open in this process
    return {name: value for name, value in offered.items() if name in names}


def is_tensorboard(target: Any) -> bool:
    """Checks whether a class of loggers writes for TensorBoard."""
    return isinstance(target, type) and issubclass(target, TensorBoardLogger)


def _known_run(at: LoggedRun, key: str) -> str | None:
    """Returns the run that this very job has begun, for services that name runs themselves."""
    file = at.folder / RUNS
    found = read_json(file).get(key, {}) if file.is_file() else {}
    return found.get("id") if found.get("job") == str(at.job.absolute()) else None


@contextmanager
def training(stage: DictConfig, at: LoggedRun, loggers: Sequence[Logger]) -> Iterator[None]:
    """Context manager in which one training logs its curves; on exit its runs are closed.

    The runs are noted in the training's ``runs.json``, for a later attempt and for jobs that reuse what it makes.
    """
    named = zip(nodes(stage).items(), loggers, strict=True)
    kept = {key: one for (key, node), one in named if keeps_runs(get_object(node._target_))}
    if kept and distributed.is_main():
        runs = {key: {"id": str(one.version), "job": str(at.job.absolute())} for key, one in kept.items()}
        write_json(at.folder / RUNS, runs)
        for one in kept.values():
            one.log_hyperparams(_hyperparameters(stage))
    try:
        yield
    finally:
        for one in kept.values():
            _end(one)


def _hyperparameters(stage: DictConfig) -> dict[str, Any]:
    plain: Mapping[str, Any] = OmegaConf.to_container(stage, resolve=True)  # type: ignore[assignment]
    found: dict[str, Any] = hidden({group: plain[group] for group in _HYPERPARAMETERS if group in plain})
    return found


def _end(logger: Logger) -> None:
    """Ends the run of services that keep one open in this process: Lightning leaves that to the user."""
    begun = open_experiment(logger)
    for name in ("finish", "end"):
        if (end := getattr(begun, name, None)) is not None:
            end()
            return


def has_tensorboard(cfg: DictConfig) -> bool:
    """Checks whether one of the config's loggers writes for TensorBoard."""
    return any(is_tensorboard(get_object(node._target_)) for node in nodes(cfg).values())
