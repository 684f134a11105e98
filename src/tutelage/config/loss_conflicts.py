"""Finds conflicts of losses: with others, none of which may silently override another, and with mixed images."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from tutelage.errors import TutelageError

_SHARED = {"alpha", "terms"}  # one alpha weighs all distillation terms


def check_together(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Refuses choices of ``loss=[a,b]`` that set a key differently, of which the last would win.

    Raises:
        TutelageError: ``hard`` is among them, one is listed twice, two have a term of the same name, or two set a key
            differently and no override decides.
    """
    chosen = _chosen(overrides)
    if len(chosen) > 1 and "hard" in chosen:
        raise TutelageError(
            f"loss=[{','.join(chosen)}]: hard sets loss.alpha to 0, and its term is part of every loss: leave it out"
        )
    composed: Any = OmegaConf.to_container(cfg.loss, resolve=True)
    for (first, a), (second, b) in combinations(chosen.items(), 2):
        both = f"loss=[{','.join(chosen)}]: {first} and {second}"
        if terms := sorted((a.get("terms", {}).keys() & b.get("terms", {}).keys()) - {"hard"}):
            raise TutelageError(f"{both} both have a term {terms[0]!r}; names of terms must differ")
        for key in sorted((a.keys() & b.keys()) - _SHARED):
            given = any(one.lstrip("+").startswith(f"loss.{key}=") for one in overrides)
            means = [_meant(one[key], composed.get("setting")) for one in (a, b)]
            if means[0] != means[1] and composed[key] in means and not given:
                raise TutelageError(f"{both} set loss.{key} to {means[0]} and {means[1]}: give loss.{key}=… for both")


def check_mixed(stage: DictConfig, name: str) -> None:
    """Refuses losses that need one class an example where images are mixed.

    Raises:
        TutelageError: names the term.
    """
    if not stage.data.get("mix"):
        return
    if name == "specialist":
        raise TutelageError("specialists learn one class an example: stages.specialist.data.mix=null")
    for key, term in stage.loss.terms.items():
        if not term.get("weight", 1.0):
            continue
        if "batch.label" in bound_paths(term):
            raise TutelageError(
                f"data.mix gives an example the labels of two; loss.terms.{key} of stages.{name} needs one "
                "(batch.label): choose another loss, or data.mix=null"
            )
        if term.loss.get("class_weights") is not None:
            raise TutelageError(f"data.mix can't be combined with loss.class_weights (stages.{name}): labels are mixed")


def bound_paths(term: DictConfig) -> list[str]:
    """Returns every ``"<source>.<signal>"`` among the inputs and targets of a term's config."""
    bound = [path for part in ("inputs", "targets") for path in (term.get(part) or {}).values()]
    return [path for one in bound for path in ([one] if isinstance(one, str) else one)]


def _meant(value: Any, setting: str | None) -> Any:
    """Returns a value of a loss's yaml; of a value per setting, that of ``setting``."""
    if isinstance(value, str) and value.startswith("${setting:"):
        return OmegaConf.create({"loss": {"setting": setting}, "value": value}).value
    return value


def _chosen(overrides: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Returns the losses of ``loss=[…]`` as in their yamls; none without such a list."""
    if not GlobalHydra.instance().is_initialized():
        return {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group == "loss" and isinstance(names := override.value(), list):
            if repeated := sorted({str(name) for name in names if names.count(name) > 1}):
                raise TutelageError(
                    f"{override.input_line}: {repeated[0]} is listed twice; a term's weight says how much"
                )
            read = GlobalHydra.instance().config_loader().repository.load_config  # type: ignore[attr-defined]
            files = {str(name): read(f"loss/{name}") for name in names}
            plain: Any = {name: OmegaConf.to_container(one.config) for name, one in files.items() if one}
            return {name: content.get("loss", content) for name, content in plain.items()}  # of a global package, too
    return {}
