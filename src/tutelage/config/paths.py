"""Paths: our ``conf/``, and the folders that a config names."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tutelage.runtime.masking import PLACES

_WRITERS = ("callbacks", "logger", "trainer")
_PACKAGE = Path(__file__).resolve().parents[1]


def anchor(cfg: DictConfig, hydra: Any) -> None:
    """Makes places absolute where ``hydra.job.chdir=true`` changes the folder; ``~/`` is the home.

    They are meant from where the command was given: else every job of a sweep would have artifacts of its own, and find
    no file. Places are the values of ``paths``, keys called ``root``, and files and folders that are there; not those
    of callbacks and loggers, which write.

    Args:
        cfg: the job's config, which is changed.
        hydra: Hydra's.
    """
    start = Path(hydra.runtime.cwd) if hydra.job.chdir else None
    for name in cfg:
        _anchor(cfg, name, start, str(name))


def _anchor(node: Any, key: Any, start: Path | None, path: str) -> None:
    """Changes one value, or those below it; one that can't be resolved is for others to refuse."""
    if key in _WRITERS:
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
    """Absolute path of the folder of configs, for ``@hydra.main``.

    That is inside the package once it is installed as a wheel, beside ``src/`` in a checkout.
    """
    for candidate in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf"):
        if (candidate / "distill.yaml").is_file():
            return str(candidate)
    raise FileNotFoundError(f"no conf/distill.yaml inside or beside {_PACKAGE}")
