"""Decides whether a run that is there may be trained longer: the same config, but for a greater ``max_epochs``."""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from torch.nn.parameter import is_lazy

from tutelage.config import factory
from tutelage.config.plan import JobPlan, plan_job
from tutelage.errors import TutelageError
from tutelage.objective import Objective
from tutelage.runtime import manifest
from tutelage.runtime.config_differences import changed
from tutelage.runtime.identity import essential
from tutelage.runtime.json_files import read_json
from tutelage.runtime.masking import hidden
from tutelage.training.callbacks.freeze import FollowsLength
from tutelage.training.callbacks.recovery import newest_intact
from tutelage.training.schedule_length import follows_length

log = logging.getLogger(__name__)

_TEACHER = "stages.teacher.trainer.max_epochs"
_LENGTHS = ("trainer.max_epochs", _TEACHER, *(f"stages.{name}.trainer.max_epochs" for name in ("control", "student")))
_READ_LENGTH = ("max_epochs", "max_steps", "estimated_stepping_batches")  # of a Trainer, by callbacks


def extends(folder: Path, cfg: DictConfig) -> bool:
    """Checks whether a config is that of the run in ``folder`` but for a greater length, and whether it may go on.

    A student goes on from its last state, and ends in the bits of one that was that long from the start. So all that it
    had until there must be the same in a longer training: its teachers, its schedule, its loss.

    Args:
        folder: of a run with another config.
        cfg: the config now, as it was composed.

    Returns:
        False where something else differs.

    Raises:
        TutelageError: the length alone differs, but it is smaller, or the student would be another one; says why.
    """
    try:
        written: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        before = essential(written)
    except (OSError, ValueError, AttributeError, yaml.YAMLError, OmegaConfBaseException):
        return False
    now: Any = OmegaConf.to_container(cfg, resolve=True)
    differ = {key: (there, here) for key, there, here in changed(before, essential(hidden(now)))}
    if not differ or not differ.keys() <= {*_LENGTHS}:
        return False
    for key in (key for key in _LENGTHS if key in differ):
        there, here = differ[key]
        if not isinstance(there, int) or not isinstance(here, int) or here < there:
            raise TutelageError(
                f"{folder} holds a run with {key}={there}; it can be made longer, not shorter (found {here}): choose "
                "another hydra.run.dir"
            )
    plan = plan_job(cfg)
    stage = plan.student
    epochs = int(written["stages"]["student"]["trainer"]["max_epochs"])
    why = _other_teacher(plan, differ) or _other_course(stage, epochs) or _no_state(folder / "checkpoints", epochs)
    if why:
        raise TutelageError(
            f"{folder} holds a run of {epochs} epochs, which can't go on to {stage.trainer.max_epochs}: {why}; or "
            "choose another hydra.run.dir to train it from the start"
        )
    log.info("%s: a run of %d epochs that goes on to %d", folder, epochs, stage.trainer.max_epochs)
    return True


def _other_teacher(plan: JobPlan, differ: Mapping[str, tuple[int, int]]) -> str:
    """Returns why the student would have another teacher; empty if it would not."""
    trained = any(not one.is_given for one in plan.teachers)
    if trained and _TEACHER in differ:
        before, _ = differ[_TEACHER]
        return f"its teacher would be trained longer as well, and be another; keep it with {_TEACHER}={before}"
    if between := list(plan.assistants):
        return f"those that teach it ({', '.join(between)}) would be trained longer as well, and be others"
    return ""


def _other_course(stage: DictConfig, epochs: int) -> str:
    """Returns why the first ``epochs`` of a longer training are not those of a shorter one; empty if they are."""
    if name := follows_length(stage.scheduler.scheduler):
        return f"scheduler.scheduler.{name} follows the length, so its learning rates would have been others"
    if (steps := stage.trainer.get("max_steps")) is not None and steps >= 0:
        return f"trainer.max_steps={steps} says how long it is"
    if path := _other_loss(factory.objective(stage), epochs, stage.trainer.max_epochs):
        return f"the schedule of loss.{path} follows the length, so its loss would have been another"
    for key, node in stage.callbacks.items():
        if node is not None and (word := _reads_length(node)):
            return f"callbacks.{key} reads the trainer's {word}"
    return ""


def _other_loss(objective: Objective, epochs: int, longer: int) -> str:
    """Returns the path of a term or loss that an epoch sets otherwise where more follow; empty if there is none."""
    for epoch in range(epochs):
        listening = objective.on_epoch_start(epoch, epochs)
        short = {path: _values(objective.get_submodule(path)) for path in listening}
        objective.on_epoch_start(epoch, longer)
        for path, values in short.items():
            if _values(objective.get_submodule(path)) != values:
                return path
    return ""


def _values(module: nn.Module) -> dict[str, Any]:
    tensors = (*module.named_buffers(recurse=False), *module.named_parameters(recurse=False))
    plain = {name: value for name, value in vars(module).items() if isinstance(value, int | float | str)}
    return plain | {name: tensor.tolist() for name, tensor in tensors if not is_lazy(tensor)}


def _reads_length(node: DictConfig) -> str:
    """Returns the name by which a callback reads the length of the training; empty if it does not."""
    target: Any = get_object(node._target_)
    if isinstance(target, type) and issubclass(target, FollowsLength):
        return "max_epochs" if instantiate(node).follows_length else ""
    if str(getattr(target, "__module__", "")).split(".")[0] in ("tutelage", "lightning"):
        return ""
    try:
        source = inspect.getsource(target)
    except (OSError, TypeError):
        return ""
    return next((word for word in _READ_LENGTH if word in source), "")


def _no_state(folder: Path, epochs: int) -> str:
    """Returns why there is nothing that the student could go on from; empty if there is, or it was not begun."""
    if (folder / manifest.NAME).is_file():
        trained = read_json(folder / "stage.json").get("epochs")
        if trained != epochs:
            return f"a callback ended it after {trained}"
    elif not (folder / "states").is_dir() and not (folder / "best.safetensors").is_file():
        return ""
    if newest_intact(folder / "states") is None:
        return f"its last state is not there, or damaged ({folder / 'states'}, callbacks.recovery.extendable)"
    return ""
