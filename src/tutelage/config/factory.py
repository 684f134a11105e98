"""Builds objects from the config."""

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from omegaconf import DictConfig, OmegaConf

from tutelage.config import source_nodes
from tutelage.config.loss_conflicts import bound_paths
from tutelage.config.optimizers import group_rules, optimizer
from tutelage.config.own_datasets import job_datasets
from tutelage.config.phases import deep_merge, settle_phases
from tutelage.config.turns import turns
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped, tapped
from tutelage.models.wrapper import Wrapper
from tutelage.objective import Objective
from tutelage.runtime import distributed
from tutelage.runtime.masking import hidden, masked
from tutelage.seeding import seeded
from tutelage.sources.base import Source
from tutelage.sources.live import Live
from tutelage.tasks.base import Task
from tutelage.training import fsdp, loggers
from tutelage.training.alternating import AlternatingModule
from tutelage.training.callbacks.generated import GeneratedImages
from tutelage.training.callbacks.gradient_norms import GradientNorms
from tutelage.training.callbacks.heartbeat import Heartbeat
from tutelage.training.callbacks.recovery import VerifiedIO
from tutelage.training.distillation import DistillationModule
from tutelage.training.fast_loop import LeanEpochLoop
from tutelage.training.module import SupervisedModule
from tutelage.training.replicas import Replicated
from tutelage.training.schedule_length import watching

STAGES = ("teacher", "control", "student")
SPEED = {"compile": False, "graph": "never"}  # options of speed, off by default
_TERM = "tutelage.objective.Term"
_LAYERS = {"control": ("student", "control"), "specialist": ("teacher", "specialist")}


def stage_config(cfg: DictConfig, name: str, phase: str | None = None) -> DictConfig:
    """Returns the whole config with one stage's settings applied.

    ``stages.<name>`` is merged over ``callbacks``, ``data``, ``optimizer``, ``scheduler`` and ``trainer``: a node with
    a ``_target_`` replaces the one of that name, single keys merge. The control's settings start from the student's, a
    specialist's from the teacher's. Losses: the student's is ``loss``; the control's is the same at alpha = 0; the
    teacher's as well, without terms that read another source. A network that a method trains in the student's place,
    ``stages.student.network``, is used above alpha = 0. Of a student with phases the stage is that of ``phase``, or of
    the last one (:mod:`tutelage.config.phases`).

    :func:`tutelage.config.plan.plan_job` resolves each stage once per job.
    """
    stage = writable(cfg)
    teaches = name in ("teacher", "specialist")
    for layer in _LAYERS.get(name, (name,)):
        own = cast(DictConfig, cfg.stages[layer])
        for group, node in own.items():
            if isinstance(node, DictConfig):
                deep_merge({group: OmegaConf.to_container(node, resolve=True)}, stage)
        for option, off in SPEED.items():
            stage[option] = own.get(option, stage.get(option, off))
    if name != "student" and "alpha" in stage.loss:
        stage.loss.alpha = 0.0
    if teaches and "label_smoothing" in stage.loss:
        stage.loss.label_smoothing = cfg.stages.teacher.label_smoothing
    settle_phases(cfg, stage, name, phase)
    stage.seed = cfg.stages.teacher.seed if teaches else cfg.seed
    alone = name != "student" or stage.loss.get("alpha") == 0.0
    if alone or "network" not in stage:
        stage.network = stage.teacher if teaches else stage.student
    if alone or not stage.get("turns"):
        stage.pop("turns", None)
    OmegaConf.resolve(stage)
    fsdp.prepare(stage)
    # only terms that it learns from, so that a sweep over the loss's temperature shares one teacher
    if name != "student":
        stage.loss = {"terms": {term: node for term, node in stage.loss.terms.items() if _counts_alone(node)}}
    return stage


def writable(config: DictConfig) -> DictConfig:
    """Returns a copy that may be changed."""
    copy = deepcopy(config)
    OmegaConf.set_readonly(copy, False)
    OmegaConf.set_struct(copy, False)
    return copy


def _counts_alone(term: DictConfig) -> bool:
    """Checks whether a term has a weight and reads no teacher."""
    paths = [*bound_paths(term), str(term.get("where") or "batch.label")]
    return bool(term.get("weight", 1.0)) and all(path.split(".")[0] in ("student", "batch") for path in paths)


class LastData:
    """Keeps the data of the last job in this process for the next job of the same multirun."""

    def __init__(self) -> None:
        self._key: dict[str, Any] | None = None
        self._made: Data | None = None

    def load(self, cfg: DictConfig) -> Data:
        """Returns a job's data; loads them again only if more than the seed differs from the last job's."""
        key = {**cast(dict[str, Any], OmegaConf.to_container(cfg.data, resolve=True)), "seed": None}
        if self._made is None or self._key != key:
            self._made = None  # two at a time may not fit into memory
            self._key, self._made = key, _load(cfg)
        return self._made.with_seed(cfg.data.seed)


_last_data = LastData()


def data(cfg: DictConfig) -> Data:
    """Returns the data, loaded and checked; jobs of a multirun in one process share them."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return _last_data.load(cfg)
    return _load(cfg)


def _load(cfg: DictConfig) -> Data:
    made = job_datasets.make(cfg.data)
    made.setup()
    return made


def network(node: DictConfig, *chance: int | str) -> Tapped:
    """Returns a network whose initial weights are a pure function of ``chance``.

    Its convolutions are laid out with the channel innermost, which makes a small network's step 1.7 times as fast on a
    CPU and is what GPUs like in half precision.
    """
    with seeded("init", *chance):
        made = instantiate(node)
    return tapped(made).to(memory_format=torch.channels_last)


def objective(stage: DictConfig) -> Objective:
    """Returns the objective of a stage: the weighted terms of its loss."""
    for name, node in stage.loss.terms.items():
        if node.get("_target_") == _TERM and "loss" not in node:
            raise TutelageError(
                f"loss.terms.{name} has no loss; that of 'hard' is given by the task: a yaml of your own in conf/task "
                "begins with `# @package _global_` and `defaults: [classification, _self_]`, or another task"
            )
    with seeded("init", stage.seed, "objective"):
        return Objective(instantiate(stage.loss.terms))


def try_trainer(stage: DictConfig) -> None:
    """Builds a stage's callbacks and Trainer, and drops them: what they refuse is said before anything is trained."""
    for node in stage.callbacks.values():
        if node is not None:
            instantiate(node)
    if not distributed.is_up():  # ranks have one strategy for all stages, which is met first by the teacher
        instantiate(stage.trainer, logger=False, enable_checkpointing=False, enable_progress_bar=False)


def task(stage: DictConfig, data: Data) -> Task:
    """Returns the task of a stage, which knows the names of the data's classes or targets."""
    made: Task = instantiate(stage.task)
    made.name_outputs(data.class_names)
    return made


def _learning(stage: DictConfig, name: str, data: Data) -> dict[str, Any]:
    """Returns the arguments that all modules share."""
    student = network(stage.network, stage.seed, "teacher" if name == "teacher" else "student")
    kind = get_object(stage.optimizer._target_)
    if isinstance(kind, type) and issubclass(kind, torch.optim.LBFGS):  # it copies all gradients into one vector
        student.to(memory_format=torch.contiguous_format)
    own = task(stage, data)
    schedule, monitor = watching(stage.scheduler, instantiate(stage.scheduler.scheduler), own)
    return {
        "student": Live(student),
        "objective": objective(stage),
        "optimizer": optimizer(stage),
        "scheduler": schedule,
        "interval": stage.scheduler.interval,
        "monitor": monitor,
        "rules": group_rules(stage),
        "task": own,
        "outputs": data.num_outputs,
        "seed": stage.seed,
        "about": about(stage, name, isinstance(student.net, Wrapper)) | {"content": data.fingerprint()},
    }


def about(stage: DictConfig, name: str, wrapped: bool = False) -> dict[str, Any]:
    """Returns the header of a network's files: the configs that rebuild it and its data.

    Args:
        stage: the config as its training sees it.
        name: of the training.
        wrapped: whether its network is trained around a plain one, which the files hold.

    Raises:
        TutelageError: a value of the network comes from the environment, which files don't record.
    """
    plain: dict[str, Any] = OmegaConf.to_container(stage, resolve=True)  # type: ignore[assignment]
    if wrapped:
        plain["network"] = plain["network"]["student"]
    if key := masked(hidden(plain["network"])):
        raise TutelageError(
            f"the {name}'s {key} comes from an environment variable (${{oc.env:…}}) or holds credentials: such "
            "values are not written to files, but a file of weights must record its network's config; give the "
            "value itself"
        )
    parts = {part: plain[part] for part in ("seed", "network", "data", "task")}
    return {"stage": name, **parts}


def supervised_module(stage: DictConfig, name: str, data: Data, reference: Source | None) -> SupervisedModule:
    """Returns the module that trains a teacher or the control on labels."""
    return SupervisedModule(**_learning(stage, name, data), reference=reference)


def sources(stage: DictConfig) -> dict[str, Source]:
    """Builds the sources of the objective's signals."""
    made = dict[str, Source]()
    for name, node in stage.sources.items():
        with seeded("init", stage.seed, "source", name):
            made[str(name)] = source_nodes.build(node)
    return made


def distillation_module(
    stage: DictConfig, data: Data, teaching: Mapping[str, Source], reference: Source | None
) -> DistillationModule:
    """Returns the module that trains a student from ``teaching``, compared on validation with ``reference``."""
    beside = {folder: OmegaConf.to_container(net, resolve=True)
              for folder, net in source_nodes.trained_beside(stage.sources).items()}  # fmt: skip
    learning = _learning(stage, "student", data)
    given = {"sources": teaching, **learning, "reference": reference, "networks_beside": beside}
    return AlternatingModule(turns=turns(stage), **given) if "turns" in stage else DistillationModule(**given)


def trainer(stage: DictConfig, name: str, folder: Path, tensorboard_dir: Path, batches: int) -> L.Trainer:
    """Returns the Lightning Trainer of one stage.

    It writes into ``folder``, and curves into ``tensorboard_dir/<name>``. An epoch of fewer than ``log_every_n_steps``
    batches is logged at its end.
    """
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # we read none
    # called every optimizer step; through NVML, as Lightning wants it, it takes 33 µs
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    given = {str(key): node for key, node in stage.callbacks.items() if node is not None}
    callbacks = [_callback(key, node, folder) for key, node in given.items()] + [Heartbeat(), GradientNorms()]
    fixed = name == "student" and stage.data.get("made") is not None
    callbacks += [GeneratedImages(fixed)] if fixed or "turns" in stage else []
    averages = distributed.is_up() and stage.trainer.get("strategy", "auto") in ("auto", "ddp")
    made: L.Trainer = instantiate(
        stage.trainer,
        **({"strategy": Replicated()} if averages else {}),
        log_every_n_steps=min(stage.trainer.log_every_n_steps, batches),
        callbacks=callbacks,
        logger=loggers.make(stage, loggers.place(stage, name, folder, tensorboard_dir)),
        default_root_dir=str(folder),
        # Ranks are Tutelage's own (runtime/distributed.py), under SLURM, too.
        plugins=[VerifiedIO(folder / "states"), LightningEnvironment()],
        use_distributed_sampler=False,  # our order distributes batches among ranks itself
        # a user's; ours is not of this class
        enable_checkpointing=any(isinstance(one, Checkpoint) for one in callbacks),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        num_sanity_val_steps=0,  # the dry run has checked every shape
    )
    made.fit_loop.epoch_loop = loop = LeanEpochLoop(made, made.min_steps, made.max_steps)
    loop.graph = stage.graph
    return made


def _callback(key: str, node: DictConfig, folder: Path) -> Any:
    """Builds a callback; Lightning's ModelCheckpoint gets the training's folder."""
    made = instantiate(node)
    if isinstance(made, Checkpoint) and hasattr(made, "dirpath"):  # else all trainings would write into one folder
        made.dirpath = str(folder / (node.get("dirpath") or f"callbacks/{key}"))
    return made
