"""Locates ``conf/`` and makes a config's paths absolute."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tutelage.runtime.masking import PLACES, WRITERS

_PACKAGE = Path(__file__).resolve().parents[1]


def anchor(cfg: DictConfig, hydra: Any) -> None:
    """Makes paths absolute if ``hydra.job.chdir=true`` changes the working directory; expands ``~/``.

    Paths are relative to the folder in which the command was given; else every job of a sweep would have artifacts of
    its own and find no file. Paths are the values of ``paths``, keys called ``root``, and existing files and folders;
    except in callbacks and loggers, which write.

    Args:
        cfg: the job's config, which is changed.
        hydra: Hydra's.
    """
    start = Path(hydra.runtime.cwd) if hydra.job.chdir else None
    for name in cfg:
        _anchor(cfg, name, start, str(name))


def _anchor(node: Any, key: Any, start: Path | None, path: str) -> None:
    """Changes one value, or those below it; skips values that can't be resolved, which are refused elsewhere."""
    if key in WRITERS:
        return
    is_place = path.startswith("paths.") or str(key) in PLACES
    try:
        if OmegaConf.is_missing(node, key) or (OmegaConf.is_interpolation(node, key) and not is_place):
            return
        value = node[key]
    except OmegaConfBaseException:
        return
    if isinstance(value, DictConfig | ListConfig):
        if not OmegaConf.is_interpolation(node, key):
            for one in list(value) if isinstance(value, DictConfig) else range(len(value)):
                _anchor(value, one, start, f"{path}.{one}")
    elif isinstance(value, str) and value and key != "_target_" and "://" not in value:
        found = Path(value).expanduser() if value.startswith("~/") and is_place else Path(value)
        certain = path.startswith("paths.") or key == "root"
        if start is not None and (certain or ((is_place or "/" in value or "." in value) and _is_there(start / found))):
            found = start / found
        if str(found) != value and found.is_absolute():
            node[key] = str(found)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, a zero byte
        return False


def conf_dir() -> str:
    """Returns the absolute path of ``conf/``, for ``@hydra.main``.

    It is inside an installed package, or beside ``src/`` in a checkout.
    """
    for candidate in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf"):
        if (candidate / "distill.yaml").is_file():
            return str(candidate)
    raise FileNotFoundError(f"conf/distill.yaml was not found inside or beside {_PACKAGE}")
