"""Prepares the teachers that ``sources`` names: trained here, reused, or loaded from a file."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from torch import nn

from tutelage.checkpoints.weights import digest, load_into, read_state, save_network
from tutelage.config import factory
from tutelage.config.plan import GENERATION, JobPlan, TeacherPlan, replaced
from tutelage.config.source_nodes import LOADING, build, networks, without_files
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.evaluation import results
from tutelage.evaluation.cost import ADDED, total
from tutelage.evaluation.predictions import Predictions, combined_predictions
from tutelage.evaluation.results import SPLITS, WEIGHTS, Trained
from tutelage.pipeline import artifacts, fit
from tutelage.pipeline.specialists import specialise
from tutelage.pipeline.supervised import Training, recipe, train_in_parallel
from tutelage.pipeline.teacher_cache import cached
from tutelage.pipeline.teacher_checks import check_file, report_stored
from tutelage.runtime import distributed
from tutelage.runtime.identity import made_with
from tutelage.sources.base import Source
from tutelage.sources.ensemble import LEARNED, learned_weights, scaled
from tutelage.sources.recorded import Recorded
from tutelage.tasks.base import Task
from tutelage.tasks.predictions import TRAIN
from tutelage.training.fsdp import is_sharded

log = logging.getLogger(__name__)

_FROZEN = "tutelage.sources.frozen.Frozen"


@dataclass(frozen=True)
class TeacherSetup:
    """The sources that teach a student, and the reference teacher that it is compared with.

    Attributes:
        stage: the student's stage; in its sources every network has its file. teacher: predictions of the source
            ``teacher``; None if it is no network.
        weights: which of its weights teach: ``last`` or ``best``.
        chain: name → the earlier teachers of a chain of assistants, in order.
        last: the name of ``teacher``.
        found: the folder of each network of the plan's ``teachers``, in their order.
    """

    stage: DictConfig
    teacher: Trained | None
    weights: str
    chain: Mapping[str, Trained]
    last: str = "teacher"
    found: tuple[Path, ...] = ()

    def generations(self) -> list[Trained]:
        """Returns the born-again students before the last one."""
        taught = {**self.chain, self.last: self.teacher}
        return [one for name, one in taught.items() if name.startswith(GENERATION) and one]

    def digests(self) -> dict[str, str]:
        """Returns for each source the digest of its networks' weights."""
        nodes = {str(name): list(networks(node)) for name, node in self.stage.sources.items()}
        return {name: "+".join(digest(read_state(one.checkpoint)) for one in of) for name, of in nodes.items() if of}

    def record(self) -> Source | None:
        """Returns the teacher's logits on validation data, to measure fidelity while students train.

        They are on record, or of a task that keeps none the teacher itself gives them.
        """
        if self.teacher is None:
            return None
        on_validation = self.teacher.predictions[self.weights, "val"]
        if isinstance(on_validation, Predictions):
            return Recorded(on_validation.key, on_validation.logits)
        node = self.stage.sources.teacher
        made = build(node.get("source") or node)  # the source of a cache
        made.attach({"logits"}, {})
        return made


def prepare_teachers(plan: JobPlan, data: Data) -> TeacherSetup:
    """Trains or finds all teachers, including assistants.

    Args:
        plan: of the job.
        data: the student's.

    Raises:
        TutelageError: assistants without a teacher network; an epoch that the teacher was not trained for.
    """
    teaching = _first_teachers(plan, data)
    for name, own in plan.assistants.items():
        if teaching.teacher is None:
            raise TutelageError("assistants and generations need a teacher that is a network, such as sources=frozen")
        own = replaced(own, {"sources": teaching.stage.sources})
        assistant = _assistant(own, name, teaching, plan.artifacts)
        file = str(assistant.folder / f"{plan.weights}.safetensors")
        chain = {**teaching.chain, teaching.last: teaching.teacher}
        stage = replaced(teaching.stage, {"sources": {"teacher": taught_by(own.network, file)}})
        teaching = TeacherSetup(stage, assistant, plan.weights, chain, name, teaching.found)
    return teaching


def taught_by(network: DictConfig, file: str) -> dict[str, Any]:
    """Returns the node of ``sources`` for a network that was trained in between, with its file of weights."""
    return {"_target_": _FROZEN, "net": network, "checkpoint": file}


def _first_teachers(plan: JobPlan, data: Data) -> TeacherSetup:
    """Trains or finds every network of ``sources`` except assistants."""
    sources, since = factory.writable(plan.student.sources), artifacts.oldest(plan.config)
    task = factory.task(plan.student, data)
    given = {}  # first, so that a wrong file is reported before hours of training
    for number, one in enumerate(plan.teachers):
        if one.is_given:
            given[number] = _trained(plan, one, data, since)
            role = f"teacher {one.checkpoint or one.training.network._target_}"
            _report(role, given[number], task, trained_here=False)
    train_in_parallel([training(plan, one) for one in plan.teachers if not one.is_given], plan.config)
    members: dict[str, list[Trained]] = {str(name): [] for name in sources}
    found = []
    for number, one in enumerate(plan.teachers):
        if (trained := given.get(number)) is None:
            trained = _trained(plan, one, data, since)
            _report(f"sources.{one.source}, as trained here,", trained, task, trained_here=True)
        members[one.source].append(trained)
        found.append(trained.folder)
    teacher, chain = None, dict[str, Trained]()
    for name, node in sources.items():
        own = members[str(name)]
        fill(node, [one.folder for one in own], plan.weights)
        group = node.get("source") or node  # the source of a cache
        made = own[0] if len(own) == 1 else None
        if own and "members" in group and isinstance(own[0].predictions["last", "val"], Predictions):
            made = _ensemble(group, own, plan.weights, plan.artifacts, since)
            group.weights = made.facts["weights"]
        if "generalist" in group:
            chain = {"generalist": own[0]} if name == "teacher" else chain
            [special] = [one.specialist for one in plan.teachers if one.source == name]
            assert special is not None  # every generalist's plan has it
            groups, specialists, made = specialise(plan, special, group, own[0])
            fill_specialists(group, groups, [one.folder for one in specialists])
        if name == "teacher":
            teacher = made
    stage = replaced(plan.student, {"sources": sources})
    return TeacherSetup(stage, teacher, plan.weights, chain, found=tuple(found))


def fill(node: DictConfig, folders: Iterable[Path], weights: str) -> None:
    """Gives the networks of a source, in their order, the files of what was trained or given for them.

    Args:
        node: of ``sources``, which is changed: a copy that nothing reads yet.
        folders: of their artifacts.
        weights: ``last`` or ``best``.
    """
    for network, folder in zip(networks(node), folders, strict=True):
        network.checkpoint = str(folder / f"{weights}.safetensors")
        network.update({option: default for option, default in LOADING.items() if option in network})  # of the user's


def fill_specialists(node: DictConfig, groups: list[list[int]], folders: Iterable[Path]) -> None:
    """Gives a source with a ``generalist`` its specialists, likewise.

    Args:
        node: of ``sources``, which is changed: a copy that nothing reads yet.
        groups: of classes, one a specialist.
        folders: of their artifacts.
    """
    files = [str(folder / "last.safetensors") for folder in folders]
    node.groups = groups
    node.specialists = [{**node.generalist, "checkpoint": file, "seed": None} for file in files]


def _report(who: str, trained: Trained, task: Task, trained_here: bool) -> None:
    if distributed.is_main():
        report_stored(who, "validation", trained.predictions["last", "val"], task, trained_here)


def check_given(plan: JobPlan, data: Data) -> None:
    """Compares Tutelage checkpoints' headers with the data, before training.

    Raises:
        TutelageError: a checkpoint was trained on other images or classes.
    """
    for one in plan.teachers:
        if one.checkpoint is not None:
            check_file(one.checkpoint, one.training.network, data, plan.student.data)


def training(plan: JobPlan, teacher: TeacherPlan) -> Training:
    """Returns the supervised training of a teacher."""
    return Training(teacher.training, "teacher", plan.artifacts, since=artifacts.oldest(plan.config))


def _trained(plan: JobPlan, teacher: TeacherPlan, data: Data, since: float) -> Trained:
    """Returns one network of ``sources``: given, or trained on labels with the teacher's stage."""
    if teacher.is_given:
        return _given(teacher, teacher.checkpoint, plan.artifacts, data, since)
    made = training(plan, teacher)()
    if plan.epoch is None:
        return made
    if not (file := made.folder / "epochs" / f"{plan.epoch}.safetensors").is_file():
        last = made.facts["epochs"] - 1
        raise TutelageError(f"stages.teacher.weights={plan.epoch}: the teacher has epochs 0 to {last}")
    return _given(replace(teacher, loading={}), str(file), plan.artifacts, data, since)


def _given(teacher: TeacherPlan, file: str | None, root: Path, data: Data, since: float) -> Trained:
    """Returns a teacher from a file, or as it was built, with its predictions as an artifact."""
    stage = teacher.training
    net = factory.network(stage.network, stage.seed, "teacher").net
    if file is not None and (place := load_into(net, file, **teacher.loading)):
        log.info("%s: weights loaded from %s", file, place)
    found = recipe_of_given(stage, data, net)

    def evaluate(work: Path) -> None:
        if distributed.is_main():
            header = {**factory.about(stage, "teacher"), **data.known_names, "epoch": None}
            for weights in WEIGHTS:
                save_network(net, work / f"{weights}.safetensors", header)
            training = {"seconds": 0.0, "epochs": 0, "steps": 0}
            whole = not is_sharded(stage)  # else it may not fit on a device
            device = distributed.device(stage.trainer) if whole else torch.device("cpu")
            fit.finish(net, work, data, factory.task(stage, data), device, training)

    return Trained.read(*artifacts.make(root, "given", found, evaluate, since))


def recipe_of_given(stage: DictConfig, data: Data, net: nn.Module) -> dict[str, Any]:
    """Returns the recipe of the predictions of a network that was given: by its weights."""
    return recipe(stage, "given", data, ("network", "data")) | {"weights": digest(net)}


def recipe_of_ensemble(node: DictConfig, members: Iterable[Path], weights: str) -> dict[str, Any]:
    """Returns the recipe of an ensemble's combined predictions.

    Args:
        node: of ``sources``, with ``members``.
        members: the folders of their artifacts, which are named by their content.
        weights: which weights of the members teach.
    """
    shares = node.get("weights")
    found = {
        "combine": node.get("combine", "probability"),
        "weights": list(shares) if isinstance(shares, ListConfig) else shares,
    }
    found["members"] = [f"{folder.parent.name}/{folder.name}" for folder in members]
    return found | {"kind": weights, **made_with({})}


def recipe_of_assistant(stage: DictConfig, data: Data) -> dict[str, Any]:
    """Returns the recipe of an assistant; in its sources every network has its file."""
    files = [digest(read_state(node.checkpoint)) for node in networks(stage.sources)]
    return recipe(stage, "assistant", data, sources=without_files(stage.sources)) | {"weights": files}


def _ensemble(node: DictConfig, members: list[Trained], weights: str, root: Path, since: float) -> Trained:
    """Returns the artifact of the members' combined predictions, weights that are learned among its facts."""
    found = recipe_of_ensemble(node, [one.folder for one in members], weights)

    def combine(work: Path) -> None:
        if not distributed.is_main():
            return
        known = [split for split in (*SPLITS, TRAIN) if all((weights, split) in one.predictions for one in members)]
        predictions = {split: [member.logits_on(weights, split) for member in members] for split in known}
        shares = found["weights"]
        if shares == LEARNED:
            logits = torch.stack([one.logits for one in predictions["val"]])
            shares = learned_weights(logits, predictions["val"][0].label, found["combine"])
        shares = scaled(shares, len(members))
        facts = {key: total(member.facts[key] for member in members) for key in ADDED}
        epochs = {"epochs": max(member.facts["epochs"] for member in members), "epoch": dict.fromkeys(WEIGHTS)}
        together = {
            split: combined_predictions(of_all, shares, found["combine"]) for split, of_all in predictions.items()
        }
        both = {(kind, split): one for kind in WEIGHTS for split, one in together.items()}
        results.write_results(work, both, {**facts, **epochs, "weights": shares.tolist()})

    return Trained.read(*artifacts.make(root, "ensemble", found, combine, since))


def _assistant(stage: DictConfig, name: str, teaching: TeacherSetup, root: Path) -> Trained:
    data, reference = factory.data(stage), teaching.record()
    found = recipe_of_assistant(stage, data)
    stage = cached(stage, root, data)

    def train(work: Path) -> None:
        fit.run(
            stage, name, work, work / "tensorboard", data,
            lambda: factory.distillation_module(stage, data, factory.sources(stage), reference),
        )  # fmt: skip

    return Trained.read(*artifacts.make(root, "assistant", found, train, artifacts.oldest(stage)))
