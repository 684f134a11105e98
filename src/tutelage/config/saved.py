"""Rebuilds objects from files: a checkpoint's network and data, a run's data."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from tutelage.checkpoints.weights import about, load_into
from tutelage.config import factory
from tutelage.config.arguments import check_arguments
from tutelage.config.trust import vetted
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.tasks.base import Task
from tutelage.tasks.classification import Classification

_REWRITES = "tutelage.data.text."


def checkpoint_of(cfg: DictConfig) -> Path:
    """Returns the path of the file of weights that ``checkpoint=`` names.

    Raises:
        TutelageError: it names none.
    """
    if not isinstance(cfg.checkpoint, str) or not cfg.checkpoint.strip():
        raise TutelageError(
            f"checkpoint={cfg.checkpoint}: expected the path of a file of weights, such as "
            "outputs/mine/checkpoints/best.safetensors"
        )
    return Path(cfg.checkpoint)


def network_of(path: str | Path, trusted: Iterable[str] = ()) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the network with its weights, and the file's header.

    Raises:
        TutelageError: the file is not from Tutelage, is damaged, or names code that is not ``trusted``.
    """
    header = _header(path)
    net = factory.network(OmegaConf.create(vetted(header.get("network"), f"{path}, network", trusted)), 0).net
    load_into(net, path)
    return net, header


def _header(path: str | Path) -> dict[str, Any]:
    try:
        header: Any = about(path)
    except (RecursionError, ValueError) as error:
        if isinstance(error, TutelageError):
            raise
        raise TutelageError(f"{path}: its header can't be read: {str(error).splitlines()[0]}") from error
    if not isinstance(header, dict):
        raise TutelageError(f"{path}: expected a mapping in its header; found {type(header).__name__}")
    return header


def data_of(
    header: Mapping[str, Any], changes: DictConfig | dict[str, Any], path: str | Path, trusted: Iterable[str] = ()
) -> Data:
    """Returns the data that the network was trained for, with ``changes`` to their config.

    Raises:
        TutelageError: the data are missing, or the file names code that is not ``trusted``.
    """
    plain = vetted(_without_rewrites(header.get("data")), f"{path}, data", trusted)
    config = cast(DictConfig, OmegaConf.merge({"data": plain}, {"data": changes}))
    if "_target_" in config.data:
        check_arguments("data", config.data)
    return factory.data(config)


def _without_rewrites(node: Any) -> Any:
    """Returns a config of data without rewrites of training texts: they may need models and files, to no purpose."""
    steps = node.get("augment") if isinstance(node, dict) else None
    ours = isinstance(steps, list) and all(
        isinstance(step, dict) and str(step.get("_target_")).startswith(_REWRITES) for step in steps
    )
    return {**node, "augment": None} if ours else node


def task_alone(node: Any, path: str | Path, trusted: Iterable[str] = ()) -> Task:
    """Returns a task by its config in a file, without data that name its outputs.

    Raises:
        TutelageError: the config names code that is not ``trusted``.
    """
    made: Task = instantiate(OmegaConf.create(vetted(node, f"{path}, task", trusted)))
    return made


def task_of(header: Mapping[str, Any], data: Data, path: str | Path, trusted: Iterable[str] = ()) -> Task:
    """Returns the task that the network was trained for; classification if the header names none.

    Raises:
        TutelageError: the file names code that is not ``trusted``.
    """
    if header.get("task") is None:
        return Classification()
    return factory.task(OmegaConf.create({"task": vetted(header["task"], f"{path}, task", trusted)}), data)
