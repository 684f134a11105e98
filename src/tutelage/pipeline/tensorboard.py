"""Writes to TensorBoard, beside a finished run's curves: HParams with the final metrics, and pictures.

HParams lists hyperparameters that differ between the runs first, and works that out by itself unless a run declares an
experiment (as Lightning's and torch's helpers do: then that of any one run holds for all). Of figures it lists those of
the run's own folder by name. So hyperparameters and figures have a folder of their own, and the figures that runs are
compared by have the first names.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from tutelage.data.module import Data
from tutelage.evaluation.pictures import confusion_picture, dark_knowledge_picture, interesting
from tutelage.evaluation.predictions import Predictions
from tutelage.evaluation.results import Trained
from tutelage.runtime.masking import hidden
from tutelage.tasks.figure_kinds import CLASSIFICATION, TaskFigures
from tutelage.tasks.metrics.classification import confusion

_CHOICES = ("loss", "model", "sources", "optimizer", "scheduler", "trainer", "data", "experiment")
_GROUPS = ("seed", "stages", "loss", "optimizer", "scheduler", "trainer", "student", "teacher", "data", "sources")


def write_tensorboard(
    folder: Path,
    cfg: DictConfig,
    found: Mapping[str, Trained | None],
    metrics: Mapping[str, Any],
    data: Data,
    taught: str,
) -> None:
    """Writes into ``folder`` (a run's ``tensorboard``): HParams and figures in ``final``, pictures of all three.

    Of the teacher the pictures show the weights that ``taught``, last or best.
    """
    step = found["student"].facts["steps"] if found["student"] else 0
    shutil.rmtree(folder / "final", ignore_errors=True)  # of an attempt before, or of a shorter training
    with SummaryWriter(str(folder / "final")) as writer:
        for summary in hparams(hyperparameters(cfg), {})[1:]:  # start and end of a session, without an experiment
            writer.file_writer.add_summary(summary)
        for name, value in final_figures(metrics):
            writer.add_scalar(name, value, step)
    if TaskFigures.of(metrics).task != CLASSIFICATION.task:  # the pictures are of one class an example
        return
    student = TensorBoardLogger(str(folder), name="", version="student", default_hp_metric=False)
    if (teacher := found["teacher"]) is not None:
        drawn = _dark_knowledge(teacher.logits_on(taught, "val"), found["student"], cfg, data)
        if drawn is not None:
            student.experiment.add_image("visual/dark_knowledge", np.asarray(drawn), step, dataformats="HWC")
    matrices = []
    for role, trained in found.items():
        if trained is not None:
            weights = taught if role == "teacher" else "last"
            counts = torch.from_numpy(confusion(trained.logits_on(weights, "test")))
            matrices.append(np.asarray(confusion_picture(counts, data.class_names)))
    # TensorBoard sorts by name: after "train" and "val"
    name = "visual/confusion_test_" + "_".join(role for role, trained in found.items() if trained is not None)
    student.experiment.add_image(name, np.concatenate(matrices, axis=1), step, dataformats="HWC")  # one card a run
    student.finalize("success")


def hyperparameters(cfg: DictConfig) -> dict[str, Any]:
    """All that may vary between the runs of a sweep: plain values of the config, and what Hydra's groups chose."""
    values = {
        key: value
        for group in _GROUPS
        for key, value in _leaves(OmegaConf.to_container(OmegaConf.create({group: cfg[group]}), resolve=False), cfg)
    }
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return hidden(values) | {
        key: str(name) for key, name in chosen.items() if name and key.partition("@")[0] in _CHOICES
    }


def _leaves(node: Any, cfg: DictConfig, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields plain values by key, without interpolations, whose targets have keys of their own."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, cfg, f"{path}.{key}" if path else str(key))
    elif isinstance(node, str) and "${" in node:
        return
    elif isinstance(node, list):
        yield path, str(node)
    elif node is not None and not path.endswith(("_target_", "_partial_")):
        yield path, node


def final_figures(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields the figures that the runs of a sweep are compared by, the headline's gain (``final/accuracy/gain``) first.

    They are those of the last weights; ``final_best/accuracy/gain`` and so on of the best on validation.
    """
    headline = TaskFigures.of(metrics).headline
    for weights, place in (("last", "final"), ("best", "final_best")):
        yield f"{place}/{headline}/gain", float(metrics["gain"][weights][headline])
        for split in ("val", "test"):
            for name, value in metrics["student"][weights][split].items():
                if name != "count":
                    yield f"{place}/{name}/{split}", float(value)


def _dark_knowledge(teacher: Predictions, student: Trained | None, cfg: DictConfig, data: Data) -> Any:
    """Returns validation examples with the teacher's predictions at the loss's temperature (default 4).

    None where inputs are no pictures.
    """
    temperature = float(cfg.loss.get("temperature", 4.0))
    rows = interesting(teacher.logits, teacher.label, 6, temperature)
    batch = data.splits["val"][0, rows]
    if (images := data.pictures(batch["input"])) is None:
        return None
    own = student.logits_on("last", "val").logits[rows] if student else None
    return dark_knowledge_picture(images, teacher.label[rows], teacher.logits[rows], temperature, data.class_names, own)
