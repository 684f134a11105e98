"""Where things are: our ``conf/``, and the folders that a config names."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

_HERE = Path(__file__).resolve().parent


def anchor(cfg: DictConfig) -> None:
    """Makes ``paths`` absolute where ``hydra.job.chdir=true`` has changed the folder; ``~`` is the home.

    They are meant from where the command was given: else every job of a sweep would have artifacts of its own.
    """
    start = Path(HydraConfig.get().runtime.cwd)
    for key, value in cfg.paths.items():
        if isinstance(value, str) and (HydraConfig.get().job.chdir or value.startswith("~/")):
            cfg.paths[key] = str(start / Path(value).expanduser())


def conf_dir() -> str:
    """Absolute path of the folder of configs, for ``@hydra.main``.

    That is inside the package once it is installed as a wheel, beside ``src/`` in a checkout.
    """
    for candidate in (_HERE / "conf", _HERE.parents[1] / "conf"):
        if (candidate / "distill.yaml").is_file():
            return str(candidate)
    raise FileNotFoundError(f"no conf/distill.yaml inside or beside {_HERE}")
