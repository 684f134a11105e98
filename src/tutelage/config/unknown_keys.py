"""Finds keys of a config that nothing reads, from a yaml, the command line or an experiment."""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from operator import getitem
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tutelage.errors import TutelageError, nearest, own_class

STAGES = ("teacher", "control", "student", "specialist")
STAGE_GROUPS = ("callbacks", "data", "loss", "optimizer", "scheduler", "trainer")  # merged over the whole config's
# Read by name in the code of `tutelage distill` and `tutelage cache`; and loss.setting, where all it sets is given.
DISTILL_KEYS = (
    "seed", "reuse", "generations", "paths.outputs", "paths.artifacts", "paths.data", "paths.run",
    "loss.alpha", "loss.label_smoothing", "loss.setting",
    "scheduler.interval", "scheduler.monitor", "scheduler.scheduler",
    *(f"stages.teacher.{key}" for key in ("seed", "label_smoothing", "workers", "weights")),
    *(f"stages.{stage}.{key}" for stage in STAGES for key in ("graph", "compile")),
    *(f"stages.{stage}.{group}" for stage in STAGES for group in STAGE_GROUPS), "stages.student.network",
    "stages.student.phases", "stages.student.turns",
)  # fmt: skip
BUILT = ("teacher", "student", "task", "data", "optimizer", "trainer")  # each has a _target_
NAMED_BY_USER = ("sources", "assistants", "callbacks", "logger", "loss.terms")  # each member has a _target_, or is null
_PACKAGE_LINE = "# @package _global_"
_INTERPOLATION = re.compile(
    r"\$\{\s*(?:oc\.(?:select|dict\.keys|dict\.values|deprecated)\s*:\s*)?(\.*)([^${}:,\[\s]*)(?=(.?))"
)


def refuse_unknown_keys(cfg: DictConfig, known: Collection[str]) -> None:
    """Refuses keys that nothing reads.

    A key is read if an interpolation names it, if it is one of ``known``, or if it is an argument of a ``_target_``
    that is built (:func:`tutelage.config.validate.check` compares those with signatures).

    Args:
        cfg: the composed config.
        known: full keys that code reads by name, including all keys below them.

    Raises:
        TutelageError: names the keys, and for each the nearest one that is read.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    named = {*_interpolated(plain), *known}
    if HydraConfig.initialized():
        named.update(_interpolated(OmegaConf.to_container(HydraConfig.get(), resolve=False)))
    if messages := [_sentence(path, plain, named) for path in _unread(plain, named)]:
        raise TutelageError("\n".join(messages))


def refuse_unknown_stage_keys(cfg: DictConfig, stage: DictConfig, name: str) -> None:
    """Refuses unknown keys that ``stages.<name>`` merges into callbacks, losses and the schedule.

    Args:
        cfg: the composed config.
        stage: its merged config, :func:`tutelage.config.factory.stage_config`.
        name: of the stage.

    Raises:
        TutelageError: names the keys.
    """
    own: Any = OmegaConf.to_container(cfg, resolve=False)
    plain: Any = OmegaConf.to_container(stage, resolve=False)
    groups = {"callbacks": plain["callbacks"], "scheduler": plain["scheduler"]}
    if isinstance(own["stages"][name].get("loss"), Mapping):  # the stage has only the terms that it needs
        groups["loss"] = OmegaConf.to_container(OmegaConf.merge(own["loss"], own["stages"][name]["loss"]))
    named = {key for key in (*DISTILL_KEYS, *_interpolated(own)) if key.partition(".")[0] in groups}
    if messages := [f"stages.{name}.{_sentence(path, groups, named)}" for path in _unread(groups, named)]:
        raise TutelageError("\n".join(messages))


def _unread(node: Mapping[Any, Any], named: Collection[str], path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the paths of the topmost keys that nothing reads."""
    within = _key(path)
    for name, value in node.items():
        key = _key((*path, name))
        member = within in NAMED_BY_USER and name != "_target_"  # the group itself is not built
        if key in named or ((key in BUILT or member) and _is_built(value)):
            continue
        parent = key in NAMED_BY_USER or any(one.startswith(f"{key}.") for one in (*named, *NAMED_BY_USER))
        if isinstance(value, Mapping) and parent:
            yield from _unread(value, named, (*path, name))
        elif not (parent and not value):  # such as `assistants: null`
            yield (*path, name)


def _key(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _is_built(value: Any) -> bool:
    """Checks whether a node has a ``_target_``, is null, or will have one once its interpolation is resolved."""
    return value is None or isinstance(value, str) or (isinstance(value, Mapping) and "_target_" in value)


def _interpolated(node: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields the full keys that interpolations name; of a nested interpolation the constant part."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _interpolated(value, (*path, str(name)))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _interpolated(value, (*path, str(i)))
    elif isinstance(node, str):
        for dots, key, end in _INTERPOLATION.findall(node):
            if end != ":" and (key := key.rstrip(".")):  # else a resolver, whose arguments may contain braces
                yield ".".join((*path[: len(path) - len(dots)], key)) if dots else key


def _sentence(path: tuple[Any, ...], config: Mapping[str, Any], named: Collection[str]) -> str:
    above, name = path[:-1], path[-1]
    node: Any = reduce(getitem, above, config)
    key, parent = _key(path), _key(above)
    beside = bool(above) and name in config  # `data.data` is as misplaced as its content
    if name == "_target_":
        return f"{key}: nothing reads this key; {own_class(parent)}"
    inner = "" if above[:1] == ("stages",) else _misplaced({name: node[name]} if beside else node[name], config)
    if inner:
        whole = f"{parent if beside else key}.{inner}"
        return f"{whole}: nothing reads this key; does its yaml lack the first line `{_PACKAGE_LINE}`?"
    known = [*named, *BUILT, *NAMED_BY_USER, *(_key((*above, one)) for one in node)]
    unread = {_key(one) for one in _unread(node, named, above)}
    prefix = f"{parent}." if above else ""
    siblings = {one.removeprefix(prefix).partition(".")[0] for one in known if one.startswith(prefix)}
    siblings = {one for one in siblings if prefix + one not in unread}
    if parent in NAMED_BY_USER:
        return f"{key} has no _target_, so nothing is built from it; {name!r}: {nearest(str(name), siblings)}"
    elsewhere = sorted(one for one in named if one.rpartition(".")[2] == str(name) and one != key)
    near = f"did you mean {' or '.join(elsewhere[:3])}?" if elsewhere else nearest(str(name), siblings)
    return f"{key}: nothing reads this key; {name!r}: {near}"


def _misplaced(value: Any, config: Mapping[str, Any], depth: int = 3) -> str:
    """Returns the first key below ``value`` that belongs to the top level of the config."""
    if isinstance(value, Mapping) and depth:
        for name, below in value.items():
            if name in config and isinstance(config[name], Mapping) == isinstance(below, Mapping):
                return str(name)
            if inner := _misplaced(below, config, depth - 1):
                return f"{name}.{inner}"
    return ""
