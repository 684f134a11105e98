"""One plan of a job: the resolved config of every training, made once from the composed config and then only read."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tutelage.config import moved, paths
from tutelage.config.arguments import targets
from tutelage.config.factory import stage_config, writable
from tutelage.config.own_datasets import job_datasets
from tutelage.config.phases import earlier_phases
from tutelage.config.preprocessing import settle_adapters
from tutelage.config.source_nodes import loading, networks
from tutelage.errors import TutelageError

GENERATION = "generation"
_FILES = ("last", "best")  # of weights that every training writes
_EVERY_EPOCH = {"_target_": "tutelage.training.callbacks.every_epoch.EveryEpoch"}


@dataclass(frozen=True)
class TeacherPlan:
    """One network of ``sources`` with weights of its own.

    Attributes:
        source: the name of the source that it belongs to.
        training: the config of its training on labels: the teacher's stage with this network and its seed.
        checkpoint: the file that is given for it; None where it is trained here, or found trained.
        loading: options of :func:`~tutelage.checkpoints.weights.load_into` for that file.
        specialist: the config of the specialists that start from it; None unless it is a generalist.
        ready: whether the network is built with the weights that teach (``train: false``).
    """

    source: str
    training: DictConfig
    checkpoint: str | None
    loading: Mapping[str, Any] = field(default_factory=dict)
    specialist: DictConfig | None = None
    ready: bool = False

    @property
    def is_given(self) -> bool:
        """Checks whether it teaches without being trained here."""
        return self.ready or self.checkpoint is not None


@dataclass(frozen=True)
class JobPlan:
    """The plan of one job: the config of each of its trainings, resolved and read-only.

    Attributes:
        composed: the config as it was composed, with its interpolations.
        config: the same resolved: what ``config.yaml`` holds.
        stages: the config as each of ``stages`` sees it: teacher, control, student, perhaps specialist.
        teachers: the networks of ``sources``, in their order.
        assistants: name → config of those between teacher and student, the first first; its ``sources`` are the
            student's: each is taught by the one before it.
        phases: name → config of the student's trainings before its last one, in their order.
    """

    composed: DictConfig
    config: DictConfig
    stages: Mapping[str, DictConfig]
    teachers: tuple[TeacherPlan, ...]
    assistants: Mapping[str, DictConfig]
    phases: Mapping[str, DictConfig] = field(default_factory=dict)

    @property
    def student(self) -> DictConfig:
        """Returns the config of the distilled student's training."""
        return self.stages["student"]

    @property
    def control(self) -> DictConfig:
        """Returns the config of the training of the student alone."""
        return self.stages["control"]

    @property
    def artifacts(self) -> Path:
        """Returns the folder of all artifacts."""
        return Path(self.config.paths.artifacts)

    @property
    def weights(self) -> str:
        """Returns the weights of a trained teacher that teach: ``last`` or ``best``; those of one epoch are both."""
        chosen = self.config.stages.teacher.weights
        return chosen if chosen in _FILES else "last"

    @property
    def epoch(self) -> int | None:
        """Returns the epoch whose weights of a trained teacher teach; None if they are the last or the best."""
        chosen = self.config.stages.teacher.weights
        return None if chosen in _FILES else chosen


def settled(cfg: DictConfig, hydra: Any) -> DictConfig:
    """Returns a read-only copy with absolute places (:func:`~tutelage.config.paths.anchor`) and new names of targets.

    Adapters stand in place of ``adapter: own`` (:func:`~tutelage.config.preprocessing.settle_adapters`).

    Args:
        cfg: the composed config, which stays as it is.
        hydra: Hydra's.
    """
    job_datasets.forget()  # a job begins
    copy = deepcopy(cfg)
    paths.anchor(copy, hydra)
    moved.update_targets(copy)
    settle_adapters(copy)
    return read_only(copy)


def resolved(cfg: DictConfig) -> DictConfig:
    """Returns the config with every interpolation resolved, read-only.

    Raises:
        OmegaConfBaseException: an interpolation names a key that is not there, or a value is missing.
    """
    return read_only(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)))  # type: ignore[arg-type]


def stages_of(cfg: DictConfig) -> dict[str, DictConfig]:
    """Returns the config as each of ``stages`` sees it, read-only."""
    return {str(name): read_only(stage_config(cfg, str(name))) for name in cfg.stages}


def phases_of(cfg: DictConfig) -> dict[str, DictConfig]:
    """Returns the configs of the student's trainings before its last one, read-only."""
    return {name: read_only(stage_config(cfg, "student", name)) for name in earlier_phases(cfg)}


def plan_job(
    cfg: DictConfig, config: DictConfig | None = None, stages: Mapping[str, DictConfig] | None = None
) -> JobPlan:
    """Resolves a composed config into the plan of its job.

    Args:
        cfg: the composed config (:func:`settled`).
        config: the same :func:`resolved`, where that has been done.
        stages: of :func:`stages_of`, likewise.

    Raises:
        TutelageError: specialists without ``stages.specialist``, or of several networks; phases beside assistants.
    """
    stages = stages_of(cfg) if stages is None else stages
    config = resolved(cfg) if config is None else config
    sources = stages["student"].sources
    for name, source in sources.items():
        if _has_generalist(source):
            _check_generalist(str(name), source, stages)
    teachers = tuple(
        _teacher(cfg, stages, str(name), source, node) for name, source in sources.items() for node in networks(source)
    )
    assistants = {
        name: read_only(stage_config(_with(cfg, {"student": net, "seed": stages["teacher"].seed + number}), "student"))
        for number, (name, net) in enumerate(_assistants(cfg).items(), start=1)
    }
    phases = phases_of(cfg)
    if phases and assistants:
        raise TutelageError("stages.student.phases can't be combined with assistants or generations")
    return JobPlan(
        cfg, config, MappingProxyType(dict(stages)), teachers, MappingProxyType(assistants), MappingProxyType(phases)
    )


def _teacher(
    cfg: DictConfig, stages: Mapping[str, DictConfig], source: str, whole: DictConfig, node: DictConfig
) -> TeacherPlan:
    seed = cfg.stages.teacher.seed if node.get("seed") is None else node.seed
    if same := node.net == stages["teacher"].network and seed == stages["teacher"].seed:
        training = stages["teacher"]
    else:
        own = _with(cfg, {"teacher": node.net, "stages": {"teacher": {"seed": seed}}})
        training = read_only(stage_config(own, "teacher"))
    if cfg.stages.teacher.weights not in _FILES:
        training = replaced(training, {"callbacks": {"every_epoch": _EVERY_EPOCH}})
    specialist = None
    if _has_generalist(whole):
        specialist = stages["specialist"] if same else read_only(stage_config(own, "specialist"))
    if ready := not node.get("train", True):
        _check_ready(f"sources.{source}", node)
    return TeacherPlan(source, training, node.checkpoint, loading(node), specialist, ready=ready)


def _check_ready(name: str, node: DictConfig) -> None:
    """Refuses ``train: false`` of one of our networks, or a library's, that gets weights from nowhere."""
    made = [one for _, one in targets(node.net)]
    given = [one.pretrained for one in made if "pretrained" in one]
    ours = all(str(one["_target_"]).startswith("tutelage.") for one in made)
    if node.checkpoint is None and ours and not any(given):
        shown = f"pretrained={given[0]}".lower().replace("none", "null") if given else "no pretrained weights"
        raise TutelageError(
            f"{name}.train=false uses the network as it is built, and {node.net.get('net', node.net)['_target_']} with "
            f"{shown} has random weights: name some by its `pretrained`, or a file by {name}.checkpoint"
        )


def _has_generalist(source: DictConfig) -> bool:
    return "generalist" in (source.get("source") or source)


def _check_generalist(name: str, source: DictConfig, stages: Mapping[str, DictConfig]) -> None:
    if len(list(networks(source))) != 1:
        raise TutelageError(f"sources.{name}: the generalist must be one frozen network, from which specialists start")
    if "specialist" not in stages:
        raise TutelageError(
            "stages.specialist, the settings that specialists are trained with, is missing: see sources=specialists"
        )


def _assistants(cfg: DictConfig) -> dict[str, DictConfig]:
    """Returns the networks between teacher and student by name: ``assistants``, then ``generations`` of the student."""
    own = {f"{GENERATION}{number}": cfg.student for number in range(1, cfg.generations + 1)}
    return {**cfg.assistants, **own}


def read_only(config: DictConfig) -> DictConfig:
    """Returns ``config``, in which nothing can be changed from here on."""
    OmegaConf.set_readonly(config, True)
    return config


def replaced(config: DictConfig, changes: Mapping[str, Any]) -> DictConfig:
    """Returns a resolved, read-only copy in which every node that ``changes`` names is replaced.

    Args:
        config: of a training, resolved.
        changes: dictionaries name nodes within nodes, down to one that has a ``_target_`` or is no dictionary.
    """
    copy = _with(config, changes)
    OmegaConf.resolve(copy)
    return read_only(copy)


def _with(config: DictConfig, changes: Mapping[str, Any]) -> DictConfig:
    copy = writable(config)
    for path, value in _leaves(changes):
        OmegaConf.update(copy, path, value, merge=False)
    return copy


def _leaves(changes: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in changes.items():
        if isinstance(value, dict) and "_target_" not in value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
