"""Private APIs of Hydra: configs of the same choices of groups are composed once, for the jobs of a sweep."""

import os
import pickle
import time
from copy import copy
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra._internal.config_repository import CachingConfigRepository
    from hydra._internal.defaults_list import DefaultsList
    from hydra.core.default_element import InputDefault
    from omegaconf import DictConfig

SETTLED = 2.0  # seconds: a file changed more recently may change again within its time stamp's resolution
_MOST = 64  # compositions that are kept, some 50 kB each


def compose_choices_once() -> None:
    """Lets Hydra compose the yaml files of the same choices once per process, until one of the files changes.

    The jobs of a sweep differ in values, mostly, which Hydra sets in the composed config: so the list of files and what
    they say together are the same. Both are kept as bytes, so that every job has a copy of its own.
    """
    from hydra._internal import config_loader_impl

    if hasattr(config_loader_impl.create_defaults_list, "__wrapped__"):
        return
    kind = config_loader_impl.ConfigLoaderImpl
    config_loader_impl.create_defaults_list = _listed(config_loader_impl.create_defaults_list)
    kind._compose_config_from_defaults_list = _merged(  # type: ignore[method-assign]
        kind._compose_config_from_defaults_list
    )


class Kept:
    """Holds values that were computed from yaml files, until one of these changes, comes or goes."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[list[str], Any, bytes]] = {}

    def get(self, key: Any, repository: "CachingConfigRepository") -> Any:
        """Returns a copy of what was kept under a key; None if there is none that still holds."""
        if key in self._known:
            paths, state, content = self._known[key]
            if _state(repository, paths) == state:
                return pickle.loads(content)
            del self._known[key]
        return None

    def put(self, key: Any, repository: "CachingConfigRepository", value: Any) -> None:
        """Keeps a value that was computed from what the repository has read, unless a defaults list interpolates.

        What ``${oc.env:NAME}`` chooses may be another file for the next job.
        """
        if any(
            _interpolates(one) for result in repository.cache.values() if result for one in result.defaults_list or ()
        ):
            return
        paths = [name.partition("=")[2] for name in repository.cache]
        state = _state(repository, paths)
        if any(one is not None and time.time() - one[1] / 1e9 < SETTLED for one in state):
            return
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[key] = paths, state, pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _interpolates(entry: "InputDefault") -> bool:
    return any("${" in str(value) for value in vars(entry).values())  # its own method needs the entry's parents


def _sources(repository: "CachingConfigRepository") -> tuple[tuple[str, str], ...]:
    return tuple((one.scheme(), one.path) for one in repository.get_sources())


def _state(repository: "CachingConfigRepository", paths: list[str]) -> tuple[tuple[int, int, int] | None, ...]:
    """Returns what identifies the content of every file that may stand for a config; None where there is no file."""
    folders = [path for scheme, path in _sources(repository) if scheme == "file"]
    names = [path if path.endswith((".yaml", ".yml")) else f"{path}.yaml" for path in paths]
    return tuple(_stamp(os.path.join(folder, name)) for folder in folders for name in names)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _listed(own: "Callable[..., DefaultsList]") -> "Callable[..., DefaultsList]":
    """Returns ``create_defaults_list`` with a memory by the choices of groups, in which values have no part."""
    from hydra._internal.defaults_list import Overrides

    kept = Kept()

    @wraps(own)
    def create_defaults_list(
        repo: "CachingConfigRepository", config_name: str | None, overrides_list: Any, **options: Any
    ) -> "DefaultsList":
        values = Overrides(repo=repo, overrides_list=overrides_list).config_overrides
        of_values = {id(one) for one in values}
        choices = [one.input_line for one in overrides_list if id(one) not in of_values and not one.is_sweep_override()]
        key = _sources(repo), config_name, *choices, *sorted(options.items())
        found = kept.get(key, repo)
        if found is None:
            made = own(repo=repo, config_name=config_name, overrides_list=overrides_list, **options)
            found = replace(made, config_overrides=[], overrides=copy(made.overrides))
            found.overrides.config_overrides = []
            kept.put(key, repo, found)
        found.config_overrides = found.overrides.config_overrides = values
        return found

    return create_defaults_list


def _merged(own: "Callable[..., DictConfig]") -> "Callable[..., DictConfig]":
    """Returns ``_compose_config_from_defaults_list`` with a memory."""
    kept = Kept()

    @wraps(own)
    def compose(loader: Any, defaults: Any, repo: "CachingConfigRepository") -> "DictConfig":
        key = _sources(repo), pickle.dumps(defaults)
        if (found := kept.get(key, repo)) is None:
            kept.put(key, repo, found := own(loader, defaults=defaults, repo=repo))
        return found

    return compose
