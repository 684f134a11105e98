"""Losses that were chosen together: what one of them says must not be lost to another in silence."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from tutelage.errors import TutelageError

_SHARED = {"alpha", "terms"}  # one alpha weighs every teacher


def check_together(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Refuses several choices of ``loss=[a,b]`` that set the same key differently: the last one would win.

    Raises:
        TutelageError: ``hard`` is among them, two of them have a term of one name, or mean different values by one key
            and nobody said which.
    """
    chosen = _chosen(overrides)
    if len(chosen) > 1 and "hard" in chosen:
        raise TutelageError(
            f"loss=[{','.join(chosen)}]: hard sets loss.alpha to 0, and every loss has its term: leave it out"
        )
    composed: Any = OmegaConf.to_container(cfg.loss, resolve=True)
    for (first, a), (second, b) in combinations(chosen.items(), 2):
        both = f"loss=[{','.join(chosen)}]: {first} and {second}"
        if terms := sorted((a.get("terms", {}).keys() & b.get("terms", {}).keys()) - {"hard"}):
            raise TutelageError(f"{both} have a term {terms[0]!r} each, and only one could be there")
        for key in sorted((a.keys() & b.keys()) - _SHARED):
            given = any(one.lstrip("+").startswith(f"loss.{key}=") for one in overrides)
            means = [_meant(one[key], composed.get("setting")) for one in (a, b)]
            if means[0] != means[1] and composed[key] in means and not given:
                raise TutelageError(f"{both} mean {means[0]} and {means[1]} by loss.{key}: say loss.{key}=… for both")


def _meant(value: Any, setting: str | None) -> Any:
    """A value of a loss's file, one of several settings' as that of ``setting``."""
    if isinstance(value, str) and value.startswith("${setting:"):
        return OmegaConf.create({"loss": {"setting": setting}, "value": value}).value
    return value


def _chosen(overrides: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The losses of ``loss=[…]`` as their files have them; none where there is no such list."""
    if not GlobalHydra.instance().is_initialized():
        return {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group == "loss" and isinstance(names := override.value(), list):
            read = GlobalHydra.instance().config_loader().repository.load_config  # type: ignore[attr-defined]
            files = {str(name): read(f"loss/{name}") for name in names}
            plain: Any = {name: OmegaConf.to_container(one.config) for name, one in files.items() if one}
            return {name: content.get("loss", content) for name, content in plain.items()}  # of a global package, too
    return {}
