"""The protocol of a distillation job: what is trained, in which order, and how the three are compared.

Teacher and control are artifacts: made once, whoever asks. The student belongs to the job. All three see the same
split; control and student share seed, first weights, order of examples, augmentation and budget, so that their
difference is the teacher's doing. Choices use validation; test is measured once, on the last and the best weights.
"""

import logging
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.text import Text

from tutelage import artifacts, build, distributed, stages
from tutelage.checks import check
from tutelage.data.base import ImageData
from tutelage.errors import TutelageError
from tutelage.evaluation.board import write_board
from tutelage.evaluation.figures import figures
from tutelage.evaluation.table import comparison
from tutelage.files import read_json, write_json
from tutelage.job import job
from tutelage.sources.base import Source
from tutelage.sources.recorded import Recorded
from tutelage.stages import SPLITS, WEIGHTS, Trained
from tutelage.weights import digest, load_into, read_state, save_network

log = logging.getLogger(__name__)

# What changes how a training is shown, run or found again, but not what comes of it.
_COSMETIC = {
    "data": ("root", "download", "num_workers", "class_names", "eval_batch_size", "verify"),
    "trainer": ("log_every_n_steps", "enable_model_summary"),
    "callbacks": ("progress", "recovery"),
}


def distill_job(cfg: DictConfig) -> float:
    """One job in its folder: check, train, compare."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no news of absent GPUs three times a job
    warnings.filterwarnings(
        "ignore", message=".*(LeafSpec|does not have many workers|in eval mode at the start).*"
    )  # nothing a user can mend
    overrides = list(HydraConfig.get().overrides.task)
    folder = Path(HydraConfig.get().runtime.output_dir)
    with job(cfg, folder, overrides):
        check(cfg, overrides)
        with distributed.ranks(cfg, "distill", folder):
            metrics = distill(cfg, folder)
    if distributed.is_main():
        Console().print(comparison(metrics))
        Console(soft_wrap=True).print(Text(str(folder), style="dim"))  # whole and as it is, to be copied
    return metrics["student"]["best"]["val"]["accuracy"]


def distill(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Teacher, control, student; returns what is written to ``metrics.json``."""
    L.seed_everything(cfg.seed, verbose=False)
    student = build.stage_config(cfg, "student")
    root = Path(cfg.paths.artifacts)
    data = build.data(student)
    _try_out(cfg, student, data)
    teachers = {name: _teacher(cfg, node, root, data) for name, node in cfg.sources.items() if "checkpoint" in node}
    teacher = teachers.get("teacher")
    reference = _record(teacher, cfg.stages.teacher.weights)
    control = _control(cfg, root, data, reference)
    checkpoints = {
        name: str(made.folder / f"{cfg.stages.teacher.weights}.safetensors") for name, made in teachers.items()
    }
    stages.run(
        student, "student", folder / "checkpoints", folder / "tensorboard", data,
        lambda: build.distillation_module(student, data.num_classes, build.sources(student, checkpoints), reference),
    )  # fmt: skip
    found = {"teacher": teacher, "control": control, "student": Trained.read(folder / "checkpoints", reused=False)}
    if (folder / "checkpoints" / "teacher").is_dir():  # a moving average came to be with the student
        found["teacher"] = Trained.read(folder / "checkpoints" / "teacher", reused=False)
    metrics = _metrics(cfg, found)
    if distributed.is_main():
        _collect(folder, found, metrics)
        if cfg.logger:
            write_board(folder / "tensorboard", cfg, found, metrics, data)
    return metrics


def _try_out(cfg: DictConfig, stage: DictConfig, data: ImageData) -> None:
    """Tries networks, taps and losses on a few images before anything is trained, the teacher's weights untrained.

    Raises:
        TutelageError: a network cannot take the images, its logits are not one for each class, or a loss cannot read
            this pair.
    """
    roles = ["student"] + ["teacher"] * any("checkpoint" in node for node in cfg.sources.values())
    images = data.sample(8)["input"]
    for role in roles:
        net = build.network(stage[role], 0).eval()
        try:
            with torch.no_grad():
                shape = list(net(images)["logits"].shape)
        except RuntimeError as error:
            raise TutelageError(f"the {role} cannot take images {list(images.shape)}: {error}") from error
        expected = [len(images), data.num_classes]
        if shape != expected:
            raise TutelageError(f"the {role} gives logits {shape}; the data's labels need {expected}")
    build.distillation_module(stage, data.num_classes, build.sources(stage, {}), None).meet(data)


def _recipe(stage: DictConfig, name: str, data: ImageData) -> dict[str, Any]:
    plain: dict[str, Any] = OmegaConf.to_container(stage, resolve=True)  # type: ignore[assignment]
    for group, keys in _COSMETIC.items():
        plain[group] = {key: value for key, value in plain[group].items() if key not in keys}
    parts = ("seed", "network", "data", "loss", "optimizer", "scheduler", "trainer", "callbacks")
    recipe = {part: plain[part] for part in parts}
    return recipe | {"stage": name, "content": data.fingerprint(), "torch": torch.__version__, "version": 1}


def _teacher(cfg: DictConfig, node: DictConfig, root: Path, data: ImageData) -> Trained:
    """The trained teacher of one source: made here, found, or given as a file."""
    stage = build.stage_config(cfg, "teacher")
    if node.checkpoint is not None:
        return _given(stage, node, root, data)
    own = build.data(stage)

    def train(work: Path) -> None:
        stages.run(
            stage, "teacher", work, work / "tensorboard", own,
            lambda: build.supervised_module(stage, "teacher", own.num_classes, None),
        )  # fmt: skip

    return Trained.read(*artifacts.make(root, "teacher", _recipe(stage, "teacher", own), train))


def _given(stage: DictConfig, node: DictConfig, root: Path, data: ImageData) -> Trained:
    """A teacher from a file: its predictions are an artifact as well."""
    recipe = {"weights": digest(read_state(node.checkpoint)), "network": OmegaConf.to_container(stage.network)}
    recipe |= {part: _recipe(stage, "given", data)[part] for part in ("data", "content")}

    def evaluate(work: Path) -> None:
        if distributed.is_main():
            net = build.network(stage.network, stage.seed, "teacher").net
            load_into(net, node.checkpoint)
            for weights in WEIGHTS:
                save_network(net, work / f"{weights}.safetensors", {**build.about(stage, "teacher"), "epoch": None})
            training = {"seconds": 0.0, "epochs": 0, "steps": 0}
            stages.finish(net, work, data, torch.device("cpu"), training)

    return Trained.read(*artifacts.make(root, "given", recipe, evaluate))


def _control(cfg: DictConfig, root: Path, data: ImageData, reference: Source | None) -> Trained:
    """The student alone: same seed, first weights, order and budget."""
    stage = build.stage_config(cfg, "control")

    def train(work: Path) -> None:
        stages.run(
            stage, "control", work, work / "tensorboard", data,
            lambda: build.supervised_module(stage, "control", data.num_classes, reference),
        )  # fmt: skip

    return Trained.read(*artifacts.make(root, "control", _recipe(stage, "control", data), train))


def _record(teacher: Trained | None, weights: str) -> Source | None:
    """The teacher's logits on validation data, to measure fidelity while students train."""
    if teacher is None:
        return None
    on_validation = teacher.predictions[weights, "val"]
    return Recorded(on_validation.key, on_validation.logits)


def _metrics(cfg: DictConfig, found: Mapping[str, Trained | None]) -> dict[str, Any]:
    """The document of ``metrics.json``: schema 1, described in README."""
    document: dict[str, Any] = {"schema": 1, "seed": cfg.seed}
    teacher = found["teacher"]
    for role, trained in found.items():
        if trained is None:
            continue
        facts = {key: trained.facts[key] for key in ("parameters", "multiply_adds", "seconds", "epochs")}
        document[role] = {"reused": trained.reused, **facts}
        for weights in WEIGHTS:
            document[role][weights] = {"epoch": trained.facts["epoch"][weights]}
            for split in SPLITS:
                beside = (
                    teacher.predictions[cfg.stages.teacher.weights, split] if teacher and role != "teacher" else None
                )
                document[role][weights][split] = figures(trained.predictions[weights, split], beside)
    document["gain"] = {
        weights: {
            key: document["student"][weights]["test"][key] - document["control"][weights]["test"][key]
            for key in document["control"][weights]["test"]
            if key != "count"
        }
        for weights in WEIGHTS
    }
    return document


def _collect(folder: Path, found: Mapping[str, Trained | None], metrics: Mapping[str, Any]) -> None:
    """Brings what the report reads into the run's folder: metrics, where the artifacts are, the curves of all three."""
    made: dict[str, Any] = {role: {"folder": str(trained.folder)} for role, trained in found.items() if trained}
    for entry in made.values():
        if (recipe := Path(entry["folder"]) / "recipe.json").is_file():
            entry["recipe"] = read_json(recipe)
    write_json(folder / "artifacts.json", made)
    for trained in found.values():
        if trained and (curves := trained.folder / "tensorboard").is_dir():
            shutil.copytree(curves, folder / "tensorboard", dirs_exist_ok=True)
    write_json(folder / "metrics.json", metrics)
