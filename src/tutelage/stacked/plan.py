"""Decides which jobs of a multirun can train as one, and why others cannot."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn, optim

from tutelage.config import optimizers
from tutelage.config.plan import JobPlan
from tutelage.data.base import ImageData
from tutelage.data.labels import describe, is_class
from tutelage.data.module import Data
from tutelage.evaluation.cost import multiply_adds
from tutelage.losses.base import hooks
from tutelage.models.quantised.network import Quantised
from tutelage.models.tapped import ReadsSources
from tutelage.models.wrapper import Wrapper
from tutelage.objective import Term
from tutelage.pipeline.teacher_cache import CACHED
from tutelage.pipeline.tensorboard_runs import SweepRuns
from tutelage.runtime.files import canonical
from tutelage.seeding import seeded
from tutelage.sources.base import Source
from tutelage.training.module import SupervisedModule

_TASK = "tutelage.tasks.classification.Classification"
_PRECISIONS = ("32-true", "64-true", "bf16-mixed")
_CALLBACKS = ("progress", "recovery", "best", "finite")  # those that a stack has or implements itself
# These update every element independently; others would mix the jobs.
_ELEMENTWISE = (
    optim.Adam,
    optim.AdamW,
    optim.Adamax,
    optim.NAdam,
    optim.RAdam,
    optim.Adagrad,
    optim.RMSprop,
    optim.SGD,
)
_RATES = re.compile(r".*dropout")
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One job of a multirun.

    Attributes:
        plan: its resolved configs.
        folder: its folder.
        overrides: its overrides on the command line.
        runs: its names in TensorBoard.
    """

    plan: JobPlan
    folder: Path
    overrides: list[str]
    runs: SweepRuns | None = None


def group_stackable(jobs: Iterable[Job]) -> list[list[Job]]:
    """Groups jobs whose configs differ only in values that a stack can hold side by side."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(_key(job.plan), []).append(job)
    return list(groups.values())


def _key(plan: JobPlan) -> str:
    """Returns a key of the teacher's and student's configs without the values that may differ."""
    student, teacher = _plain(plan.student), _plain(plan.stages["teacher"])
    parts = ("network", "data", "loss", "optimizer", "scheduler", "trainer", "callbacks")
    of_teacher = {part: teacher[part] for part in parts}
    of_student = {part: student[part] for part in (*parts, "sources", "logger")}
    of_student["loss"] = _without_numbers(of_student["loss"])
    of_student["optimizer"] = _without_numbers(of_student["optimizer"])
    of_student["network"] = _without_rates(of_student["network"])
    if not _reads_augmented_cache(of_student):
        of_student["data"].pop("seed", None)
    whole = [of_student, of_teacher, teacher["seed"], teacher["stages"]["teacher"]["weights"], student["assistants"]]
    specialist = student["stages"].get("specialist")
    paths = {name: path for name, path in student["paths"].items() if name != "run"}
    return canonical([*whole, specialist, student["generations"], paths])


def _reads_augmented_cache(stage: dict[str, Any]) -> bool:
    """Checks whether cached signals of augmented images are read, which differ from seed to seed."""
    on_disk = any(node.get("_target_") == CACHED for node in stage["sources"].values())
    return on_disk and bool(stage["data"].get("augment"))


def _plain(stage: DictConfig) -> Any:
    return OmegaConf.to_container(stage, resolve=True)


def _without_numbers(node: Any) -> Any:
    """Removes numbers (a loss's tensors, an optimizer's settings); :func:`stack_key` compares all others."""
    if isinstance(node, dict):
        return {key: _without_numbers(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_numbers(value) for value in node]
    return None if isinstance(node, int | float) and not isinstance(node, bool) else node


def _without_rates(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: None if _RATES.fullmatch(key) else _without_rates(value) for key, value in node.items()}
    return [_without_rates(value) for value in node] if isinstance(node, list) else node


def refusal(plan: JobPlan) -> str:
    """Returns why the config rules out stacking; empty if it does not."""
    stage = plan.student
    trainer = stage.trainer
    if plan.assistants:
        return "assistants and generations are trained with the student's temperature and loss weights"
    if plan.phases or stage.network.get("init") is not None or "turns" in stage:
        return "student.init, stages.student.phases and turns: first weights, or images, that others have made"
    if stage.task._target_ != _TASK or stage.task.get("metrics"):
        return "a stack measures task=classification, without task.metrics"
    if trainer.devices not in (1, [0], "1") or trainer.strategy != "auto":
        return f"trainer.devices={trainer.devices} trainer.strategy={trainer.strategy}: a stack trains on one device"
    if str(trainer.precision) not in _PRECISIONS:
        return f"trainer.precision={trainer.precision}: a stack supports {', '.join(_PRECISIONS)}"
    if trainer.get("gradient_clip_val"):
        return "trainer.gradient_clip_val: the norm would be that of all jobs"
    if optimizers.group_rules(stage) is not None:
        return "optimizer.no_decay, layer_decay and groups: a stack has one group of parameters for each job's settings"
    if stage.scheduler.get("monitor"):
        return "scheduler.monitor: the schedule would depend on the metric of a single network"
    if stage.callbacks.get("best") is None:
        return "callbacks.best is missing"
    others = [name for name, node in stage.callbacks.items() if node is not None and name not in _CALLBACKS]
    return f"callbacks.{others[0]} supports a single network only" if others else ""


def too_large(module: SupervisedModule, data: Data, most: float | None) -> str:
    """Returns why stacking would not be faster on a CPU; empty if it would.

    A student whose matrix products use the whole processor gains nothing. Convolutions count twice, since stacked ones
    become grouped convolutions, which are slower on a CPU.
    """
    if torch.cuda.is_available() or most is None:
        return ""
    net = module.student.net.net
    if (each := multiply_adds(deepcopy(net), data.sample(1))) is None:
        return ""
    work = data.batch_size * each
    work *= 2 if any(isinstance(layer, nn.Conv2d) for layer in net.modules()) else 1
    if work <= most:
        return ""
    return f"stacking is no faster on a CPU: a batch has {work:.2g} multiply-adds, hydra.launcher.max_macs={most:.2g}"


def stack_key(module: SupervisedModule, stage: DictConfig) -> str:
    """Returns a key of everything that stacked trainings must share: all but tensors, dropout rates and seeds."""
    optimizer = module.optimizer
    assert isinstance(optimizer, partial)
    group = {"lr", "weight_decay", "betas", "eps", "momentum", "alpha", "rho", "lambd", "initial_accumulator_value"}
    settings = {key: value for key, value in optimizer.keywords.items() if key not in group}
    parts = [_form(module.student.net), _form(module.objective)]
    course = [_plain(stage[part]) for part in ("trainer", "scheduler", "callbacks")]
    return json.dumps([*parts, *course, str(optimizer.func), sorted(map(str, settings.items()))])


def zero_teacher_terms(student: SupervisedModule, control: SupervisedModule) -> frozenset[str] | None:
    """Sets the weights of the student's objective to the control's, and to 0 for terms that the control lacks.

    Returns:
        The names of these terms. None, without any change, if weights cannot make the objectives equal: a loss has
        parameters, or a term differs.
    """
    own, wanted = student.objective.terms, control.objective.terms
    if any(True for _ in student.objective.parameters()) or not wanted.keys() <= own.keys():
        return None
    if any(_form(own[name]) != _form(wanted[name]) for name in wanted):
        return None
    for name, term in own.items():
        cast(Term, term).weight.fill_(float(cast(Term, wanted[name]).weight) if name in wanted else 0.0)
    return frozenset(own.keys() - wanted.keys())


def _form(module: nn.Module) -> list[str]:
    return [f"{path} {type(one)} {sorted(_facts(one))}" for path, one in module.named_modules()]


def _facts(module: nn.Module) -> Iterator[str]:
    for name, value in vars(module).items():
        rate = isinstance(module, nn.Dropout) and name == "p"
        if not name.startswith("_") and not rate and not isinstance(value, nn.Module) and not callable(value):
            yield f"{name}={value!r}"
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        yield f"{name}: {list(tensor.shape)} {tensor.dtype}"


def unfit(module: SupervisedModule, teaching: Mapping[str, Source], data: Data) -> str:
    """Returns why trainings with such a module cannot be stacked; empty if they can."""
    if why := _unfit_data(data):
        return why
    optimizer = getattr(module.optimizer, "func", module.optimizer)
    if optimizer not in _ELEMENTWISE:
        return f"{optimizer} is not known to update each weight independently"
    net, objective = module.student.net.net, module.objective
    if why := _unfit_network(net):
        return f"{type(net).__name__} {why}"
    for name, source in teaching.items():
        if name in module.needs and (_learns(source) or source.trained_networks()):
            return f"the source {name!r} changes during training"
    if any(cast(Term, term).chooses_rows for term in objective.terms.values()):
        return "some training images have no label, or a term has a mask (where)"
    for _, loss in objective.losses():
        if hooks(loss) & {"bind", "prepare"}:
            return f"{type(loss).__name__} stores something by example, or is trained before the student"
    return _unfit_step(module, teaching, data)


def _unfit_network(net: nn.Module) -> str:
    if isinstance(net, Wrapper):
        return "is trained around the network that is written"
    if isinstance(net, Quantised):
        return "rounds its weights in every step"
    if isinstance(net, ReadsSources):
        return "reuses a part of its teacher"
    shares = len(list(net.named_parameters(remove_duplicate=False))) != len(list(net.parameters()))
    return "has layers that share weights" if shares else ""


def _unfit_data(data: Data) -> str:
    if not isinstance(data, ImageData) or data.sampler is not None:
        return "it needs images of one size without a sampler" + " (data.sampler)" * (data.sampler is not None)
    if data.derived:
        return f"data.derived: a stack reads images alone, not {', '.join(data.derived)}"
    if not is_class(labels := data.splits["train"].labels):
        return f"it needs labels that are one class an example; these are {describe(labels)}"
    return ""


def _learns(source: Source) -> bool:
    follows = type(source).after_step is not Source.after_step
    return follows or any(parameter.requires_grad for parameter in source.parameters())


def _unfit_step(module: SupervisedModule, teaching: Mapping[str, Source], data: Data) -> str:
    """Returns why a step cannot be stacked: it draws random numbers beside dropout's, or replaces buffers."""
    student, objective = deepcopy(module.student), deepcopy(module.objective)
    for one in student.modules():
        if type(one) is nn.Dropout:
            one.p = 0.0
    batch = data.sample(min(8, data.batch_size))
    random = "draws random numbers in a step, and only dropout's can be drawn for each job"
    with seeded("chance"), torch.no_grad():
        signals_of_teachers = {name: source(batch) for name, source in teaching.items() if name in module.needs}
        before = torch.get_rng_state()
        kept = {**dict(student.named_buffers()), **dict(objective.named_buffers())}
        signals = student.train()(batch)
        if not torch.equal(before, torch.get_rng_state()):
            return f"{type(module.student.net.net).__name__} {random}"
        objective.train()({"batch": batch, "student": signals, **signals_of_teachers})
        if not torch.equal(before, torch.get_rng_state()):
            return f"the objective {random}"
    now = {**dict(student.named_buffers()), **dict(objective.named_buffers())}
    replaced = [name for name in now if now[name] is not kept.get(name)]
    return f"a step replaces the buffer {replaced[0]} instead of changing it in place" if replaced else ""


def cut(learners: Sequence[T], most: int) -> Iterator[list[T]]:
    """Splits ``learners`` into the fewest stacks of at most ``most``, as equal in size as possible."""
    for rows in np.array_split(np.arange(len(learners)), max(1, -(-len(learners) // most))):
        if len(rows):
            yield [learners[row] for row in rows]
