"""Private APIs of Hydra and OmegaConf."""

import os
import pickle
import re
import time
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.compat.compositions import SETTLED, compose_choices_once

if TYPE_CHECKING:  # what only hides secrets needs none of Hydra
    from hydra._internal.defaults_list import Overrides
    from hydra.core.default_element import InputDefault
    from hydra.core.utils import JobReturn
    from hydra.plugins.config_source import ConfigResult, ConfigSource
    from omegaconf import DictConfig, Node

_MODE, _HYDRA = re.compile(r"^[^#\n]*\bmode\b", re.M), re.compile(r"^[^#\n]*\bhydra\b", re.M)
_FEW = 2000  # files and folders: a folder of configs may lie among data
_TEXTS = 4096  # of interpolations whose parsed form, some kilobytes each, is kept


def job_result(job_return: "JobReturn") -> Any:
    """Returns what a job has returned, or the exception that ended it.

    The public ``return_value`` raises that exception, and prints before.
    """
    return job_return._return_value


def full_key(node: "Node") -> str:
    """Returns the key of a config's node from its root, such as ``data.roots[0]``; no public function gives it."""
    return str(node._get_full_key(None))


def compose_quickly() -> None:
    """Lets Hydra do once what it does for every config, and leave out what nothing reads; the config is the same.

    Each yaml file is parsed once per process, until it changes: Hydra composes a command's config twice (once to learn
    its mode) and each job of a sweep anew, and reads the same thirty files each time. OmegaConf parses each text of an
    interpolation once. And the table of choices that ``${…}`` in a defaults list is resolved from is made where a list
    has such an entry alone, not for every file. Jobs with the same choices of groups share one composition
    (:func:`~tutelage.compat.compositions.compose_choices_once`). No public plugin or option can do any of it.
    """
    import omegaconf
    from hydra._internal import defaults_list
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    Plugins.instance()  # its scan executes the modules of the sources again: the registry has those that count
    for scheme in ("file", "pkg"):
        kind = SourcesRegistry.instance().resolve(scheme)
        if not hasattr(kind.load_config, "__wrapped__"):
            kind.load_config = _kept(kind.load_config)  # type: ignore[assignment, method-assign]
    if not hasattr(defaults_list._create_interpolation_map, "__wrapped__"):
        defaults_list._create_interpolation_map = _if_read(  # type: ignore[assignment]
            defaults_list._create_interpolation_map
        )
        omegaconf.base.parse = omegaconf._utils.parse = lru_cache(_TEXTS)(omegaconf.base.parse)
    compose_choices_once()


def compose_once() -> None:
    """Lets Hydra compose a command's config once where no yaml and no override says ``hydra.mode``.

    Hydra composes the whole config to read that one key, and then again. No option of it says that there is none.
    """
    from hydra._internal.hydra import Hydra

    if hasattr(Hydra.get_mode, "__wrapped__"):
        return
    own = Hydra.get_mode

    @wraps(own)
    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        sources = [(one.scheme(), one.path) for one in self.config_loader.get_sources()]
        if _may_set_mode(sources, overrides):
            return own(self, config_name=config_name, overrides=overrides)
        return None

    Hydra.get_mode = get_mode  # type: ignore[method-assign]


def _may_set_mode(sources: Iterable[tuple[str, str]], overrides: Iterable[str]) -> bool:
    """Checks whether ``hydra.mode`` may be set: by an override, or in a file that has both words outside comments.

    A folder of many files is not searched: composing is quicker.
    """
    if any("hydra.mode" in one or "hydra.searchpath" in one for one in overrides):
        return True
    for scheme, path in sources:
        if scheme == "file":
            found = list(islice(Path(path).rglob("*"), _FEW + 1))
            if len(found) > _FEW or any(_names_mode(one) for one in found if one.suffix in (".yaml", ".yml")):
                return True
        elif (scheme, path) not in (("pkg", "hydra.conf"), ("structured", "")):
            return True
    return False


def _names_mode(file: Path) -> bool:
    text = f"{file.parent.name}\n{file.read_text(encoding='utf-8', errors='replace')}"
    return bool(_MODE.search(text)) and bool(_HYDRA.search(text))


def _kept(load: "Callable[[Any, str], ConfigResult]") -> "Callable[[Any, str], ConfigResult]":
    """Returns ``load`` with a memory of what it returned; as bytes, so that every caller has a copy of its own."""
    parsed: dict[tuple[Any, ...], bytes] = {}

    @wraps(load)
    def load_config(source: "ConfigSource", config_path: str) -> "ConfigResult":
        name = config_path if config_path.endswith((".yaml", ".yml")) else f"{config_path}.yaml"
        key = (source.provider, source.path, name)
        if source.scheme() == "file":
            try:
                found = os.stat(os.path.join(source.path, name))
            except OSError:  # Hydra has the message for it
                return load(source, config_path)
            if time.time() - found.st_mtime < SETTLED:
                return load(source, config_path)
            key = (*key, found.st_ino, found.st_mtime_ns, found.st_size)  # type: ignore[assignment]
        if key not in parsed:
            parsed[key] = pickle.dumps(load(source, config_path), pickle.HIGHEST_PROTOCOL)
        return pickle.loads(parsed[key])

    return load_config


def _if_read(make: "Callable[..., DictConfig]") -> "Callable[..., DictConfig | None]":
    """Returns ``make``, which makes the table of choices for one defaults list, but None where no entry reads it."""

    @wraps(make)
    def table(overrides: "Overrides", entries: "list[InputDefault]", self_added: bool) -> "DictConfig | None":
        if any(not one.is_self() and one.is_interpolation() for one in entries):
            return make(overrides, entries, self_added)
        return None

    return table
