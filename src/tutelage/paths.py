"""Where our ``conf/`` is: inside the package once it is installed as a wheel, beside ``src/`` in a checkout."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def conf_dir() -> str:
    """Absolute path of the folder of configs, for ``@hydra.main``."""
    for candidate in (_HERE / "conf", _HERE.parents[1] / "conf"):
        if (candidate / "distill.yaml").is_file():
            return str(candidate)
    raise FileNotFoundError(f"no conf/distill.yaml inside or beside {_HERE}")
