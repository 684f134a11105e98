"""The config as a whole, checked before anything is built."""

import inspect
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from tutelage.errors import TutelageError, nearest

# Mappings whose keys are names that the user makes up, and those laid over a group.
_OPEN = ("terms", "sources", "callbacks", "logger", "taps", "inputs", "targets", "optimizer", "scheduler", "trainer")


def check(cfg: DictConfig, overrides: Iterable[str] = ()) -> None:
    """Refuses what would fail late or pass in silence.

    Raises:
        TutelageError: names the key, what it may be and what was found.
    """
    _check_overrides(cfg, list(overrides))
    for path, node in targets(cfg):
        _check_arguments(path, node)
    _check_values(cfg)


def _check_overrides(cfg: DictConfig, overrides: list[str]) -> None:
    keys = [o.lstrip("+~").split("=", 1)[0] for o in overrides]
    for key, times in Counter(keys).items():
        if times > 1:
            raise TutelageError(f"{key} is given {times} times on the command line; only the last would count")
    for override in overrides:
        if override.startswith("+") and "@" not in override:
            _check_added(cfg, override.lstrip("+").split("=", 1)[0])


def _check_added(cfg: DictConfig, key: str) -> None:
    """An added key is read by somebody if its parent is a ``_target_`` (checked elsewhere) or an open mapping."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if isinstance(node, DictConfig) and ("_target_" in node or parent.rpartition(".")[2] in _OPEN):
        return
    if isinstance(node, DictConfig) and OmegaConf.is_config(node.get(name)) and "/" not in key:
        return  # a whole group or mapping, such as +experiment=…
    siblings = [str(k) for k in node if k != name] if isinstance(node, DictConfig) else []
    raise TutelageError(f"+{key}: nothing reads this key; {nearest(name, siblings)}")


def targets(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Every node with a ``_target_``, with its full key."""
    if isinstance(node, DictConfig):
        if node._is_none() or node._is_missing():
            return
        if "_target_" in node:
            yield path, node
        for key in node:
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                yield from targets(node[key], f"{path}.{key}" if path else str(key))
    elif isinstance(node, ListConfig):
        for i, item in enumerate(node):
            yield from targets(item, f"{path}[{i}]")


def _check_arguments(path: str, node: DictConfig) -> None:
    try:
        target = get_object(node._target_)
    except Exception as error:
        raise TutelageError(f"{path}._target_: cannot find {node._target_!r} ({error})") from error
    signature = inspect.signature(target)
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return
    for key in node:
        if not str(key).startswith("_") and key not in signature.parameters:
            raise TutelageError(f"{path}.{key}: {node._target_} takes no {key!r}; {nearest(key, signature.parameters)}")


def _check_values(cfg: DictConfig) -> None:
    number(cfg, "seed", low=0, whole=True)
    number(cfg, "data.batch_size", low=1, whole=True)
    for key in ("trainer", "stages.teacher.trainer", "stages.control.trainer", "stages.student.trainer"):
        number(cfg, f"{key}.max_epochs", low=1, whole=True)
    for key in ("optimizer.lr", "stages.teacher.optimizer.lr", "stages.student.optimizer.lr"):
        number(cfg, key, above=0.0)
    if cfg.stages.teacher.weights not in ("last", "best"):
        raise TutelageError(f"stages.teacher.weights must be 'last' or 'best'; found {cfg.stages.teacher.weights!r}")
    number(cfg, "loss.alpha", low=0.0, high=1.0)
    number(cfg, "loss.temperature", above=0.0)
    number(cfg, "loss.label_smoothing", low=0.0, high=1.0)


def number(
    cfg: DictConfig,
    key: str,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    whole: bool = False,
) -> None:
    """Checks one key, where the config has it, to be a finite number in a range.

    Raises:
        TutelageError: it is not.
    """
    value = OmegaConf.select(cfg, key)
    if value is None:
        return
    kind = "a whole number" if whole else "a number"
    limits = [f"≥ {low:g}"] * (low > -math.inf) + [f"> {above:g}"] * (above > -math.inf) + [f"≤ {high:g}"] * (high < math.inf)
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or value < low or value > high or value <= above:
        raise TutelageError(f"{key} must be {kind} {' and '.join(limits)}; found {value!r}")
