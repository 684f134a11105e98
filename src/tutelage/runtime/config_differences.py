"""Describes the keys in which two configs differ."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tutelage.runtime.identity import is_cosmetic

_MOST = 8  # keys that a message names
_ABSENT = object()


def differences(file: Path, config: Mapping[str, Any]) -> str:
    """Names the keys in which ``config`` differs from the one in ``file``, with both values.

    Args:
        file: a resolved config as YAML.
        config: plain values.

    Returns:
        Such as ``loss.alpha: 0.7 there, 0.6 here; seed: 0 there, 1 here``, or a hint if the file can't be read.
    """
    try:
        written: Any = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException):
        written = None
    if not isinstance(written, dict):
        return f"{file.name} there can't be read"
    found = [f"{key}: {_text(there)} there, {_text(here)} here" for key, there, here in changed(written, config)]
    more = [f"and {len(found) - _MOST} more keys"] if len(found) > _MOST else []
    return "; ".join(found[:_MOST] + more) or f"see its {file.name}"


def changed(there: Any, here: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields key, value there and value here of all that differs between two configs, as plain values."""
    if there == here or is_cosmetic(path):
        return
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys((*there, *here)):
            yield from changed(there.get(key, _ABSENT), here.get(key, _ABSENT), f"{path}.{key}" if path else str(key))
    else:
        yield path, there, here


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
