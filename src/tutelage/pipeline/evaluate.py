"""``tutelage evaluate``: measures a checkpoint, whose header describes its model and data."""

import logging
import sys
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from tutelage.checkpoints.weights import digest
from tutelage.config.saved import checkpoint_of, data_of, network_of, task_of
from tutelage.config.unknown_keys import refuse_unknown_keys
from tutelage.data.module import Data
from tutelage.errors import TutelageError, first_line
from tutelage.evaluation.cost import multiply_adds, parameters
from tutelage.evaluation.predictions import Stored, eval_mode, measure
from tutelage.evaluation.table import MISSING
from tutelage.models.tapped import run
from tutelage.pipeline.sweep import given
from tutelage.runtime import devices
from tutelage.runtime.job import short_job
from tutelage.runtime.json_files import write_json
from tutelage.runtime.status import terminal
from tutelage.sources.live import Live
from tutelage.tasks.base import Task
from tutelage.tasks.figure_kinds import TaskFigures
from tutelage.tasks.predictions import as_saved

log = logging.getLogger(__name__)

_KEYS = ("checkpoint", "teacher", "split", "data", "device", "trust", "paths.outputs")


def evaluate_job(cfg: DictConfig) -> float:
    """Measures ``checkpoint`` on ``split``; prints the metrics and writes ``metrics.json``."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with short_job(cfg, folder, given(HydraConfig.get())):
        _check(cfg)
        document = evaluate(cfg)
        write_json(folder / "metrics.json", document)
    terminal(sys.stdout).print(_table(document))
    return document["figures"][TaskFigures.of(document).headline]


def _check(cfg: DictConfig) -> None:
    refuse_unknown_keys(cfg, _KEYS)
    if OmegaConf.is_missing(cfg, "checkpoint"):
        raise TutelageError("checkpoint=… is needed: a file that `tutelage distill` wrote, such as …/last.safetensors")
    if cfg.split not in ("train", "val", "test"):
        raise TutelageError(f"split must be train, val or test; found {cfg.split!r}")
    devices.usable(cfg.device)


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Returns the metrics of a checkpoint, and facts from its header."""
    net, header = network_of(checkpoint_of(cfg), cfg.trust)
    data = data_of(header, cfg.data, cfg.checkpoint, cfg.trust)
    if not cfg.data and header.get("content") not in (None, data.fingerprint()):
        log.warning(
            "the data differ from those that %s was trained with, in content or, of files, in path, size or time; "
            "its figures may differ from the training's, and the split may be another",
            cfg.checkpoint,
        )
    beside = network_of(cfg.teacher, cfg.trust)[0] if cfg.teacher else None
    task = task_of(header, data, cfg.checkpoint, cfg.trust)
    _check_outputs(net, beside, data, cfg)
    compared = beside is not None and task.keeps_logits  # afterwards; else the teacher answers beside the network
    theirs = _answers(beside, data, cfg, task, None)[0] if compared else None  # type: ignore[arg-type]
    found, own = _answers(net, data, cfg, task, None if compared else beside)
    figures = task.figures(as_saved(found), None if theirs is None else as_saved(theirs))
    return {
        "schema": 1,
        "checkpoint": str(Path(cfg.checkpoint).absolute()),
        "weights": digest(net),
        "about": header,
        "split": cfg.split,
        "parameters": parameters(net),
        "multiply_adds": multiply_adds(net, data.sample(1)),
        "task": task.figure_kinds.document(),
        "figures": figures | own,
    }


def _check_outputs(net: torch.nn.Module, teacher: torch.nn.Module | None, data: Data, cfg: DictConfig) -> None:
    """Checks that network and teacher can read the data, and give logits of one shape."""
    own = _outputs(net, data, f"checkpoint={cfg.checkpoint}")
    if teacher is not None and (theirs := _outputs(teacher, data, f"teacher={cfg.teacher}")) != own:
        raise TutelageError(f"teacher={cfg.teacher} gives logits {theirs} for these data, the network {own}")


def _outputs(net: torch.nn.Module, data: Data, what: str) -> list[int]:
    """Returns the shape of the logits of one example.

    Raises:
        TutelageError: the network can't read these data.
    """
    with eval_mode(net), torch.no_grad():
        try:
            return [*run(net, data.sample(1)).shape]
        except Exception as error:  # networks may be anyone's
            shape = list(data.input_shape)
            raise TutelageError(f"{what} can't answer these data, of {shape}: {first_line(error)}") from error


def _answers(
    net: torch.nn.Module, data: Data, cfg: DictConfig, task: Task, beside: torch.nn.Module | None
) -> tuple[Stored, dict[str, float]]:
    loader = data.labelled() if cfg.split == "train" else data.whole(cfg.split)
    if loader is None:
        raise TutelageError("split=train: this data has no labelled training example")
    teacher = None if beside is None else Live(beside.to(cfg.device)).eval()
    found = measure(net.to(cfg.device), loader, cfg.device, task, teacher)
    net.cpu()
    return found


def _table(document: dict[str, Any]) -> Table:
    table = Table(title=f"{document['about']['stage']} on {document['split']}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name in ("parameters", "multiply_adds"):
        table.add_row(name, MISSING if document[name] is None else f"{document[name]:,}")
    for name, value in document["figures"].items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
    return table
