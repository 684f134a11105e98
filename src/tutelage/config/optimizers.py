"""Builds a training's optimizer, and tries it with its schedule before anything is trained."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tutelage.config.trainer_arguments import figures_of
from tutelage.errors import TutelageError
from tutelage.training.parameter_groups import OPTIONS, GroupRules, rules_of
from tutelage.training.schedule_length import (
    check_keeps_rates,
    check_kind,
    check_length,
    epoch_length,
    filled,
    length,
    watching,
)

# Arguments that optimizers of libraries take unchecked, or refuse in words without a key: what they are, and whether a
# number fits. None is left to the optimizer.
_NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "weight_decay": ("a number ≥ 0", lambda x: x >= 0),
    "max_grad_norm": ("a number > 0, or null", lambda x: x > 0),
    "momentum": ("a number ≥ 0 and < 1", lambda x: 0 <= x < 1),
    "betas": ("numbers ≥ 0 and < 1", lambda x: 0 <= x < 1),
    "eps": ("a number > 0", lambda x: x > 0),
}
_SWITCHES = (
    "always_adapt", "amsgrad", "bias_correction", "caution", "corrected_weight_decay", "decoupled_decay",
    "grad_averaging", "maximize", "nesterov", "trust_clip",
)  # fmt: skip


def check_settings(section: Mapping[Any, Any] | None, place: str) -> None:
    """Checks the arguments of an optimizer that are common, and those of its groups.

    Args:
        section: ``optimizer`` of the config or of a stage, or one of its groups.
        place: its key.

    Raises:
        TutelageError: names the key.
    """
    given = section or {}
    for name, (kind, fits) in _NUMBERS.items():
        value = given.get(name)
        numbers: Any = [] if value is None else [value] if isinstance(value, int | float | str) else value
        if not all(type(x) in (int, float) and fits(x) for x in numbers):
            raise TutelageError(f"{place}.{name} must be {kind}; found {value}")
    for name in _SWITCHES:
        if not isinstance(given.get(name), bool | None):
            raise TutelageError(f"{place}.{name} must be true or false; found {given[name]!r}")
    groups = given.get("groups")
    for pattern, settings in groups.items() if isinstance(groups, Mapping) else ():
        if isinstance(settings, Mapping):
            check_settings(settings, f"{place}.groups.{pattern}")


def optimizer(stage: DictConfig) -> Any:
    """Returns a function from parameters to an optimizer; not fused if gradients are clipped in mixed precision.

    Lightning can't clip gradients that a fused optimizer unscales by itself, and refuses this in bfloat16, too.
    """
    mixed = str(stage.trainer.precision) not in ("32-true", "64-true", "32", "64")
    refused = stage.trainer.get("gradient_clip_val") and mixed and stage.optimizer.get("fused")
    node = {key: value for key, value in stage.optimizer.items() if key not in OPTIONS}
    return instantiate(node, **({"fused": False} if refused else {}))


def group_rules(stage: DictConfig) -> GroupRules | None:
    """Returns the rules of a stage's optimizer that give some parameters settings of their own; None without any."""
    options = {name: stage.optimizer.get(name) for name in OPTIONS}
    return rules_of(OmegaConf.to_container(OmegaConf.create(options), resolve=True))  # type: ignore[arg-type]


def try_optimizer(stage: DictConfig, name: str, batches: int | None) -> None:
    """Builds a stage's optimizer and schedule for a dummy weight, to find errors early.

    Args:
        stage: the config as this training sees it.
        name: of the stage.
        batches: of an epoch; None where they are not known yet.

    Raises:
        TutelageError: they reject their arguments, or the schedule does not fit the training's length.
    """
    interval, schedule = stage.scheduler.interval, instantiate(stage.scheduler.scheduler)
    own = instantiate(stage.task)
    schedule, monitor = watching(stage.scheduler, schedule, own)
    check_kind(stage.scheduler, schedule, monitor, figures_of(name, own), own)
    whole, epoch = (of(interval, stage.trainer, batches or 10**6) for of in (length, epoch_length))  # unknown: long
    rules, alone = group_rules(stage), torch.nn.Parameter(torch.zeros(2, 2))
    try:
        tried = optimizer(stage)([alone])
        if rules is not None:  # some refuse groups
            other = {"lr": tried.defaults["lr"] / 2} if rules.varies_rates else {}
            tried = optimizer(stage)([{"params": alone}, {"params": torch.nn.Parameter(alone.detach()), **other}])
        made = None if schedule is None else filled(schedule, lambda: whole, lambda: epoch)(tried)
    except TutelageError as error:
        raise TutelageError(f"{error} ({name})") from error
    except (ArithmeticError, TypeError, ValueError) as error:
        raise TutelageError(f"optimizer or scheduler of the {name}: {error}") from error
    if rules is not None and rules.varies_rates:
        check_keeps_rates(made, tried)
    if made is not None and (batches is not None or interval == "epoch"):
        check_length(made, stage.scheduler, whole, stage.trainer.max_epochs, name)
