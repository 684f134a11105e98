"""Records what a run ran on: command line, versions, machine, commit."""

import importlib.metadata
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

_PACKAGES = ("tutelage", "torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy", "scikit-learn")


def provenance(overrides: list[str]) -> Mapping[str, Any]:
    """Returns what is needed to repeat a run: command line, versions, machine, commit."""
    return {
        "command": sys.argv,
        "overrides": overrides,
        **_begun(),
        "versions": {name: version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.platform()}, {os.cpu_count()} CPUs",
        "commit": _commit(),
    }


def version(package: str) -> str | None:
    """Returns the version of an installed package; ours, run from a checkout, has it in pyproject.toml. Else None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        project = Path(__file__).resolve().parents[3] / "pyproject.toml"
        if package != "tutelage" or not project.is_file():
            return None
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def _begun() -> Mapping[str, Any]:
    """The verb, what Hydra's groups chose, and where it was started: Hydra's own files are written at every start."""
    if not HydraConfig.initialized():
        return {}
    hydra = HydraConfig.get()
    choices = OmegaConf.to_container(hydra.runtime.choices)
    return {"verb": hydra.job.config_name, "choices": choices, "cwd": hydra.runtime.cwd}


def _commit() -> str | None:
    here = Path(__file__).parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None  # an installed wheel is in no repository
