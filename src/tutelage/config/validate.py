"""Checks the whole config before anything is built."""

import logging
import math
from collections.abc import Iterable
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError

from tutelage.config.arguments import check_arguments, targets
from tutelage.config.loss_conflicts import check_mixed, check_together
from tutelage.config.optimizers import check_settings
from tutelage.config.plan import JobPlan, phases_of, plan_job, resolved, stages_of
from tutelage.config.trainer_arguments import check_callbacks, check_trainer
from tutelage.config.turns import check_turns
from tutelage.config.unknown_keys import DISTILL_KEYS, STAGE_GROUPS, refuse_unknown_keys, refuse_unknown_stage_keys
from tutelage.errors import TutelageError
from tutelage.runtime import distributed
from tutelage.training.callbacks.ema import refuse_others
from tutelage.training.compiled import check_compile
from tutelage.training.dot import check_apart
from tutelage.training.graphs import check_option

log = logging.getLogger(__name__)

_ABSENT = object()
# Data settings that may differ between teacher and student: examples and their order, not the split or pixel range.
_OWN_DATA = {
    "augment", "batch_size", "classes", "drop_last", "eval_batch_size", "focus", "inputs", "labelled", "long_tail",
    "made", "mix", "num_workers", "repeat_labelled", "sampler", "seed", "unlabelled", "views",
}  # fmt: skip
_OF_ALL = {"accelerator", "devices", "num_nodes"}  # ranks are started once, for all stages


def check(cfg: DictConfig, overrides: Iterable[str] = (), config: DictConfig | None = None) -> JobPlan:
    """Refuses values that would fail late or be ignored silently; resolves all others into the plan of the job.

    Args:
        cfg: the composed config.
        overrides: what it was composed with.
        config: the same resolved, where that has been done (:func:`check_resolves`).

    Raises:
        TutelageError: names the key, what it may be and what was found.
    """
    if distributed.is_main():  # other ranks get the config of rank 0, which lacks Hydra's part
        refuse_unknown_keys(cfg, DISTILL_KEYS)
    check_together(cfg, list(overrides))
    for path, node in targets(cfg):
        check_arguments(path, node)
    for key in ("paths.outputs", "paths.artifacts", "loss.terms"):
        if OmegaConf.select(cfg, key) is None:
            raise TutelageError(f"{key} is needed; found null")
    _check_values(cfg)
    _check_callbacks(cfg.callbacks, "callbacks")
    stages = stages_of(cfg)
    # only now the merged arguments of `stages.<name>` can be compared with the group's _target_
    for name, stage in stages.items():
        refuse_unknown_stage_keys(cfg, stage, name)
    phases = {f"student.phases.{name}": stage for name, stage in phases_of(cfg).items()}
    for name, stage in {**stages, **phases}.items():
        _check_stage(cfg, stage, stages["student"], name)
    check_turns(cfg, stages["student"])
    return plan_job(cfg, config, stages)


def _check_stage(cfg: DictConfig, stage: DictConfig, student: DictConfig, name: str) -> None:
    _check_same_data(stage, student, name)
    check_mixed(stage, name)
    _check_ranks(stage.trainer, cfg.trainer, name)
    _check_callbacks(stage.callbacks, f"stages.{name}.callbacks")
    check_trainer(stage.trainer, "trainer" if stage.trainer == cfg.trainer else f"stages.{name}.trainer")
    if stage.scheduler.interval not in ("epoch", "step"):
        raise TutelageError(f"scheduler.interval must be epoch or step; found {stage.scheduler.interval!r}")
    for path, node in targets(stage.callbacks, f"stages.{name}.callbacks"):
        refuse_others(get_object(node._target_), path)
    own = stage.callbacks != cfg.callbacks
    for group in STAGE_GROUPS:
        for path, node in targets(stage[group], f"stages.{name}.{group}"):
            check_arguments(path, node)
    check_callbacks(stage, name, f"stages.{name}.callbacks" if own else "callbacks")
    kinds = [get_object(node._target_) for _, node in targets(stage.callbacks, "callbacks")]
    compiles = OmegaConf.select(cfg, f"stages.{name}.compile", default=False) is not False
    check_apart(stage, get_object(stage.optimizer._target_), kinds, compiles)


_SECTIONS = (
    "data", "teacher", "student", "loss", "sources", "optimizer", "scheduler", "stages", "callbacks", "trainer",
    "paths",
)  # fmt: skip


def check_resolves(cfg: DictConfig) -> DictConfig:
    """Returns the resolved config; if that fails, misplaced keys are reported first.

    Raises:
        TutelageError: names a section that is missing, keys that nothing reads, or that have no content.
        OmegaConfBaseException: an interpolation names a key that is not there, or a value is missing.
    """
    for key in _SECTIONS:
        if key not in cfg:
            raise TutelageError(f"{key}: the config has no such section, which is needed; leave out {key}=[] or ~{key}")
        if not isinstance(value := cfg.get(key), DictConfig):
            given = "null" if value is None else value
            raise TutelageError(f"{key}={given}: it must be a section of the config, with keys of its own")
    try:
        return resolved(cfg)
    except InterpolationKeyError:
        refuse_unknown_keys(cfg, DISTILL_KEYS)
        raise
    except InterpolationResolutionError:  # a resolver that computes with what is no number
        _check_loss(cfg)
        raise


def _check_speed(cfg: DictConfig) -> None:
    for name in map(str, cfg.stages):
        check_option(OmegaConf.select(cfg, f"stages.{name}.graph", default="never"), name)
        check_compile(OmegaConf.select(cfg, f"stages.{name}.compile", default=False), name)


def _check_values(cfg: DictConfig) -> None:
    if not isinstance(reuse := cfg.get("reuse", True), bool):
        raise TutelageError(f"reuse must be true or false; found {reuse!r}")
    for key in ("seed", "stages.teacher.seed"):
        number(cfg, key, low=0, high=2**32 - 1, whole=True)
    number(cfg, "data.batch_size", low=1, whole=True)
    number(cfg, "data.num_classes", low=2, whole=True, null=True)  # null: labels are floats
    number(cfg, "data.num_outputs", low=1, whole=True)
    for key in ("trainer", *(f"stages.{name}.trainer" for name in cfg.stages)):
        number(cfg, f"{key}.max_epochs", low=1, whole=True)
        _check_trainer_numbers(cfg, key)
    for place in ("", *(f"stages.{name}." for name in cfg.stages)):
        number(cfg, f"{place}optimizer.lr", above=0.0)
        check_settings(OmegaConf.select(cfg, f"{place}optimizer"), f"{place}optimizer")
        _check_schedule(cfg, f"{place}scheduler.scheduler")
    for key in ("callbacks", *(f"stages.{name}.callbacks" for name in cfg.stages)):
        number(cfg, f"{key}.recovery.keep", low=1, whole=True)
    for key in ("data.val_size", "data.test_size"):
        number(cfg, key, low=0.0)
    distributed.check_devices(cfg.trainer)
    _check_weights(cfg)
    _warn_of_ascent(cfg)
    _check_speed(cfg)
    number(cfg, "stages.teacher.workers", low=1, whole=True, null=True)
    number(cfg, "generations", low=0, whole=True)
    number(cfg, "data.views", low=1, whole=True, null=True)
    _check_loss(cfg)
    _check_finite(OmegaConf.to_container(cfg, resolve=True), "")


def _check_loss(cfg: DictConfig) -> None:
    number(cfg, "loss.alpha", low=0.0, high=1.0)
    number(cfg, "loss.temperature", above=0.0)
    for key in ("loss.label_smoothing", "stages.teacher.label_smoothing"):
        number(cfg, key, low=0.0, high=1.0)


def _check_trainer_numbers(cfg: DictConfig, key: str) -> None:
    """Checks numbers that Lightning takes unseen: a negative accumulation ascends, a negative clipping is none."""
    number(cfg, f"{key}.log_every_n_steps", low=1, whole=True)
    whole = {
        "accumulate_grad_batches": 1,
        "check_val_every_n_epoch": 1,
        "min_epochs": 0,
        "min_steps": 0,
        "max_steps": -1,
    }
    for name, low in whole.items():
        number(cfg, f"{key}.{name}", low=low, whole=True, null=True)
    for name in ("limit_train_batches", "limit_val_batches"):
        number(cfg, f"{key}.{name}", above=0.0, null=True)
    number(cfg, f"{key}.gradient_clip_val", low=0.0, null=True)  # 0: none


def _check_schedule(cfg: DictConfig, key: str) -> None:
    """Checks lengths and least rates of torch's schedules, which accept negative ones and then oscillate or ascend."""
    for name in ("T_max", "T_0", "step_size", "total_iters", "total_steps"):
        number(cfg, f"{key}.{name}", low=1, whole=True, null=True)  # null: the whole training
    for name in ("eta_min", "min_lr"):
        number(cfg, f"{key}.{name}", low=0.0)


def _warn_of_ascent(cfg: DictConfig) -> None:
    for name, term in cfg.loss.terms.items():
        weight = term.get("weight") if isinstance(term, DictConfig) else None
        if isinstance(weight, int | float) and weight < 0:
            log.warning("loss.terms.%s.weight=%g is negative: training increases this loss", name, weight)


def _check_weights(cfg: DictConfig) -> None:
    weights = OmegaConf.select(cfg, "stages.teacher.weights")
    if weights not in ("last", "best") and not (type(weights) is int and weights >= 0):
        raise TutelageError(f"stages.teacher.weights must be 'last', 'best' or an epoch from 0; found {weights!r}")
    if type(weights) is int and weights >= (epochs := cfg.stages.teacher.trainer.max_epochs):
        raise TutelageError(f"stages.teacher.weights={weights}: the teacher has the epochs 0 to {epochs - 1}")


def _check_same_data(stage: DictConfig, student: DictConfig, name: str) -> None:
    """Checks the settings that must be the same in all stages, so that all are measured on the same examples."""
    keys = (set(map(str, stage.data)) | set(map(str, student.data))) - (set() if name == "control" else _OWN_DATA)
    for key in sorted(keys):
        found, expected = stage.data.get(key), student.data.get(key)
        if found != expected:
            raise TutelageError(f"stages.{name}.data.{key}: must equal the student's, {expected!r}; found {found!r}")


def _check_ranks(own: DictConfig, job: DictConfig, name: str) -> None:
    """Compares the devices of a stage's trainer with the job's, for which the ranks of all stages are started."""
    for key in sorted(_OF_ALL):
        if (found := own.get(key)) != (expected := job.get(key)):
            raise TutelageError(
                f"stages.{name}.trainer.{key}: ranks are started once for all stages, so it must equal "
                f"trainer.{key}, {expected!r}; found {found!r}"
            )


def _check_callbacks(callbacks: DictConfig, path: str) -> None:
    for name in ("best", "recovery"):
        if callbacks.get(name) is None:
            raise TutelageError(f"{path}.{name} is needed: it writes the best weights and the states to resume from")
    if callbacks.get("prune") is not None and callbacks.get("ema") is not None:
        raise TutelageError(
            f"{path}.prune: an average of weights ({path}.ema) does not keep zeros; leave out one of them"
        )


def _check_finite(node: Any, path: str) -> None:
    """Refuses NaN, infinity and integers of more than 64 bits elsewhere, which no recipe, tensor or file can hold."""
    if isinstance(node, dict):
        for key, value in node.items():
            _check_finite(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            _check_finite(value, f"{path}[{i}]")
    elif isinstance(node, float) and not math.isfinite(node):
        raise TutelageError(f"{path} must be a finite number; found {node}")
    elif isinstance(node, int) and not -(2**63) <= node < 2**63:
        raise TutelageError(f"{path} must fit into 64 bits; found an integer of {node.bit_length()}")


def number(
    cfg: DictConfig,
    key: str,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    whole: bool = False,
    null: bool = False,
) -> None:
    """Checks one key, where the config has it, to be a finite number in a range, or null where that is allowed.

    Raises:
        TutelageError: it is not.
    """
    value = OmegaConf.select(cfg, key, default=_ABSENT)
    if value is _ABSENT or (null and value is None):
        return
    kind = "a whole number" if whole else "a number"
    limits = (
        [f"≥ {low:.10g}"] * (low > -math.inf)
        + [f"> {above:g}"] * (above > -math.inf)
        + [f"≤ {high:.10g}"] * (high < math.inf)
    )
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not fits or not abs(value) < math.inf or value < low or value > high or value <= above:
        raise TutelageError(f"{key} must be {kind} {' and '.join(limits)}; found {value!r}")
