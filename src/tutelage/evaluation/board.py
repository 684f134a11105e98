"""What TensorBoard shows of a finished run beside its curves: HParams with the final figures, and pictures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from tutelage.data.base import ImageData
from tutelage.evaluation.figures import confusion
from tutelage.evaluation.pictures import confusion_picture, dark_knowledge_picture, interesting
from tutelage.stages import Trained

_GROUPS = ("seed", "stages", "loss", "optimizer", "scheduler", "trainer", "student", "teacher", "data", "sources")


def write_board(
    folder: Path, cfg: DictConfig, found: Mapping[str, Trained | None], metrics: Mapping[str, Any], data: ImageData
) -> None:
    """Writes into ``folder`` (a run's ``tensorboard``): HParams beside the student's curves, pictures of all three."""
    step = found["student"].facts["steps"] if found["student"] else 0
    student = TensorBoardLogger(str(folder), name="", version="student", default_hp_metric=False)
    student.log_hyperparams(hyperparameters(cfg), dict(final_figures(metrics)))
    if (teacher := found["teacher"]) is not None:
        image = np.asarray(_dark_knowledge(teacher, found["student"], cfg, data))
        student.experiment.add_image("dark_knowledge", image, step, dataformats="HWC")
    student.finalize("success")
    for role, trained in found.items():
        if trained is not None:
            board = TensorBoardLogger(str(folder), name="", version=role)
            image = np.asarray(confusion_picture(confusion(trained.predictions["last", "test"]), data.class_names))
            board.experiment.add_image("confusion/test", image, trained.facts["steps"], dataformats="HWC")
            board.finalize("success")


def hyperparameters(cfg: DictConfig) -> dict[str, Any]:
    """Every plain value of the config that may vary between the runs of a sweep, by its full key."""
    return {
        key: value
        for group in _GROUPS
        for key, value in _leaves(OmegaConf.to_container(OmegaConf.create({group: cfg[group]}), resolve=False), cfg)
    }


def _leaves(node: Any, cfg: DictConfig, path: str = "") -> Iterator[tuple[str, Any]]:
    """Interpolations are left out: what they point to is there by its own name."""
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
    """The figures that the runs of a sweep are compared by."""
    for weights in ("last", "best"):
        for split in ("val", "test"):
            for name, value in metrics["student"][weights][split].items():
                if name not in ("count",):
                    yield f"final/{weights}/{split}/{name}", float(value)
        yield f"final/{weights}/gain", float(metrics["gain"][weights]["accuracy"])


def _dark_knowledge(teacher: Trained, student: Trained | None, cfg: DictConfig, data: ImageData) -> Any:
    """Validation examples with what the teacher makes of them at the loss's temperature (4 where it has none)."""
    temperature = float(cfg.loss.get("temperature", 4.0))
    on_validation = teacher.predictions["last", "val"]
    rows = interesting(on_validation.logits, on_validation.label, 6, temperature)
    batch = data.splits["val"][0, rows]
    images = (batch["input"] * data.normalise.std + data.normalise.mean).clamp(0, 1)
    own = student.predictions["last", "val"].logits[rows] if student else None
    return dark_knowledge_picture(
        images, on_validation.label[rows], on_validation.logits[rows], temperature, data.class_names, own
    )
