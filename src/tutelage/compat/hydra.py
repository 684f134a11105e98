"""Private APIs of Hydra and OmegaConf."""

import os
import pickle
import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what only hides secrets needs none of Hydra
    from hydra.core.utils import JobReturn
    from hydra.plugins.config_source import ConfigResult, ConfigSource
    from omegaconf import Node

_SETTLED = 2.0  # seconds: a file changed more recently may change again within its time stamp's resolution


def job_result(job_return: "JobReturn") -> Any:
    """Returns what a job has returned, or the exception that ended it.

    The public ``return_value`` raises that exception, and prints before.
    """
    return job_return._return_value


def full_key(node: "Node") -> str:
    """Returns the key of a config's node from its root, such as ``data.roots[0]``; no public function gives it."""
    return str(node._get_full_key(None))


def parse_files_once() -> None:
    """Lets Hydra parse each yaml file once per process, until the file changes.

    Hydra composes every command's config twice (once to learn its mode) and each job of a sweep anew, and reads the
    same thirty files each time: a third of the time of composing. Neither its public plugins nor its options can
    keep a parsed file.
    """
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    Plugins.instance()  # its scan executes the modules of the sources again: the registry has those that count
    for scheme in ("file", "pkg"):
        kind = SourcesRegistry.instance().resolve(scheme)
        if not hasattr(kind.load_config, "__wrapped__"):
            kind.load_config = _kept(kind.load_config)  # type: ignore[assignment, method-assign]


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
            if time.time() - found.st_mtime < _SETTLED:
                return load(source, config_path)
            key = (*key, found.st_ino, found.st_mtime_ns, found.st_size)  # type: ignore[assignment]
        if key not in parsed:
            parsed[key] = pickle.dumps(load(source, config_path), pickle.HIGHEST_PROTOCOL)
        return pickle.loads(parsed[key])

    return load_config
