"""Prepares the teachers that ``sources`` names: trained here, reused, or loaded from a file."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from tutelage.checkpoints.weights import digest, load_into, read_state, save_network
from tutelage.config import factory
from tutelage.config.factory import networks, without_files
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.evaluation import results
from tutelage.evaluation.cost import ADDED, total
from tutelage.evaluation.predictions import combined_predictions
from tutelage.evaluation.results import SPLITS, WEIGHTS, Trained
from tutelage.evaluation.saved_predictions import TRAIN
from tutelage.pipeline import artifacts, fit
from tutelage.pipeline.specialists import specialise
from tutelage.pipeline.supervised import Training, recipe, train_in_parallel
from tutelage.pipeline.teacher_cache import cached
from tutelage.pipeline.teacher_checks import check_file, report_accuracy
from tutelage.runtime import distributed
from tutelage.runtime.identity import made_with
from tutelage.sources.ensemble import LEARNED, learned_weights, scaled
from tutelage.sources.recorded import Recorded
from tutelage.training.fsdp import is_sharded

log = logging.getLogger(__name__)

_GENERATION = "generation"
_FROZEN = "tutelage.sources.frozen.Frozen"
_EVERY_EPOCH = {"_target_": "tutelage.training.callbacks.every_epoch.EveryEpoch"}


@dataclass(frozen=True)
class TeacherSetup:
    """The sources that teach a student, and the reference teacher that it is compared with.

    Attributes:
        stage: the student's stage; in its sources every network has its file. teacher: predictions of the source
            ``teacher``; None if it is no network.
        weights: which of its weights teach: ``last`` or ``best``.
        chain: name → the earlier teachers of a chain of assistants, in order. last: the name of ``teacher``.
    """

    stage: DictConfig
    teacher: Trained | None
    weights: str
    chain: Mapping[str, Trained]
    last: str = "teacher"

    def generations(self) -> list[Trained]:
        """Returns the born-again students before the last one."""
        taught = {**self.chain, self.last: self.teacher}
        return [one for name, one in taught.items() if name.startswith(_GENERATION) and one]

    def digests(self) -> dict[str, str]:
        """Returns for each source the digest of its networks' weights."""
        nodes = {str(name): list(networks(node)) for name, node in self.stage.sources.items()}
        return {name: "+".join(digest(read_state(one.checkpoint)) for one in of) for name, of in nodes.items() if of}

    def record(self) -> Recorded | None:
        """Returns the teacher's logits on validation data, to measure fidelity while students train."""
        if self.teacher is None:
            return None
        on_validation = self.teacher.predictions[self.weights, "val"]
        return Recorded(on_validation.key, on_validation.logits)


def prepare_teachers(cfg: DictConfig, root: Path, data: Data) -> TeacherSetup:
    """Trains or finds all teachers, including assistants.

    Args:
        cfg: the whole config.
        root: folder of all artifacts.
        data: the student's.

    Raises:
        TutelageError: assistants without a teacher network; an epoch that the teacher was not trained for.
    """
    teaching = _engage(cfg, root, data)
    for number, (name, network) in enumerate(assistants(cfg).items(), start=1):
        if teaching.teacher is None:
            raise TutelageError("assistants and generations need a teacher that is a network, such as sources=frozen")
        own = _assistant_stage(cfg, number, network, teaching)
        assistant = _assistant(own, name, teaching, root)
        file = str(assistant.folder / f"{_weights(cfg)}.safetensors")
        stage = teaching.stage.copy()
        stage.sources = {**stage.sources, "teacher": {"_target_": _FROZEN, "net": own.network, "checkpoint": file}}
        OmegaConf.resolve(stage)
        chain = {**teaching.chain, teaching.last: teaching.teacher}
        teaching = TeacherSetup(stage, assistant, _weights(cfg), chain, name)
    return teaching


def assistants(cfg: DictConfig) -> dict[str, DictConfig]:
    """Returns the networks between teacher and student by name: ``assistants``, then ``generations`` of the student."""
    own = {f"{_GENERATION}{number}": cfg.student for number in range(1, cfg.generations + 1)}
    return {**cfg.assistants, **own}


def _weights(cfg: DictConfig) -> str:
    """Returns which weights of a trained teacher are used: last, best, or those of an epoch."""
    chosen = cfg.stages.teacher.weights
    return chosen if chosen in WEIGHTS else "last"


def _with(config: DictConfig, changes: Mapping[str, Any]) -> DictConfig:
    """Returns a copy in which the nodes in ``changes`` are replaced."""
    copy = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    OmegaConf.set_struct(copy, False)
    for path, value in _leaves(changes):
        OmegaConf.update(copy, path, value, merge=False)
    return copy  # type: ignore[return-value]


def _leaves(changes: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in changes.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _engage(cfg: DictConfig, root: Path, data: Data) -> TeacherSetup:
    """Trains or finds every network of ``sources`` except assistants."""
    stage = factory.stage_config(cfg, "student")
    teacher, chain = None, dict[str, Trained]()
    given = {}  # first, so that a wrong file is reported before hours of training
    for node in networks(stage.sources):
        if node.checkpoint is not None:
            who, made = f"teacher {node.checkpoint}", _trained(cfg, node, root, data)
            given[_use(node, made, _weights(cfg))] = made
            _report(who, made, trained_here=False)
    untrained = [node for node in networks(stage.sources) if node.checkpoint is None]
    train_in_parallel([_training(_with_teacher(cfg, node), root) for node in untrained], cfg)
    for name, node in stage.sources.items():
        trained = []
        for network in networks(node):
            if network.checkpoint in given:
                trained.append(given[network.checkpoint])
            else:
                trained.append(_trained(cfg, network, root, data))
                _report(f"sources.{name}, as trained here,", trained[-1], trained_here=True)
                _use(network, trained[-1], _weights(cfg))
        group = node.get("source") or node  # the source of a cache
        if trained and "members" in group:
            trained = [_ensemble(group, trained, _weights(cfg), root, artifacts.oldest(cfg))]
        if "generalist" in group:
            if len(trained) != 1:
                raise TutelageError(
                    f"sources.{name}: the generalist must be one frozen network, from which specialists start"
                )
            chain = {"generalist": trained[0]} if name == "teacher" else chain
            trained = [specialise(_with_teacher(cfg, group.generalist), group, trained[0], _weights(cfg), root)]
        if name == "teacher" and trained:
            [teacher] = trained
    return TeacherSetup(stage, teacher, _weights(cfg), chain)


def _use(node: DictConfig, trained: Trained, weights: str) -> str:
    """Writes the trained or given file into a node of ``sources``."""
    node.checkpoint = str(trained.folder / f"{weights}.safetensors")
    for option in ("key", "prefix"):  # of the user's file
        if node.get(option) is not None:
            node[option] = None
    return node.checkpoint


def _report(who: str, trained: Trained, trained_here: bool) -> None:
    if distributed.is_main():
        on_validation = trained.predictions["last", "val"]
        report_accuracy(who, "validation", on_validation.logits, on_validation.label, trained_here)


def check_given(sources: DictConfig, data: Data, statistics: DictConfig) -> None:
    """Compares Tutelage checkpoints' headers with the data, before training.

    Raises:
        TutelageError: a checkpoint was trained on other images or classes.
    """
    for node in networks(sources):
        if node.checkpoint is not None:
            check_file(node.checkpoint, node.net, data, statistics)


def _with_teacher(cfg: DictConfig, node: DictConfig) -> DictConfig:
    """Returns the whole config with the network of one node of ``sources`` as its teacher."""
    seed = cfg.stages.teacher.seed if node.get("seed") is None else node.seed
    return _with(cfg, {"teacher": node.net, "stages": {"teacher": {"seed": seed}}})


def _training(cfg: DictConfig, root: Path) -> Training:
    """Returns the supervised training of the config's teacher."""
    stage = factory.stage_config(cfg, "teacher")
    if cfg.stages.teacher.weights not in WEIGHTS:
        stage.callbacks.every_epoch = _EVERY_EPOCH
    return Training(stage, "teacher", root, since=artifacts.oldest(cfg))


def _trained(cfg: DictConfig, node: DictConfig, root: Path, data: Data) -> Trained:
    """Returns the network of one node of ``sources``: given, or trained on labels with the teacher's stage."""
    training, epoch = _training(_with_teacher(cfg, node), root), cfg.stages.teacher.weights
    if node.checkpoint is not None:
        key, prefix = node.get("key"), node.get("prefix")
        return _given(training.stage, node.checkpoint, root, data, training.since, key, prefix)
    made = training()
    if epoch in WEIGHTS:
        return made
    if not (file := made.folder / "epochs" / f"{epoch}.safetensors").is_file():
        last = made.facts["epochs"] - 1
        raise TutelageError(f"stages.teacher.weights={epoch}: the teacher has epochs 0 to {last}")
    return _given(training.stage, str(file), root, data, training.since)


def _given(
    stage: DictConfig,
    checkpoint: str,
    root: Path,
    data: Data,
    since: float,
    key: str | None = None,
    prefix: str | None = None,
) -> Trained:
    """Returns a teacher from a file, with its predictions as an artifact."""
    net = factory.network(stage.network, stage.seed, "teacher").net
    if place := load_into(net, checkpoint, key, prefix):
        log.info("%s: weights loaded from %s", checkpoint, place)
    found = recipe(stage, "given", data, ("network", "data")) | {"weights": digest(net)}

    def evaluate(work: Path) -> None:
        if distributed.is_main():
            header = {**factory.about(stage, "teacher"), **data.named_classes, "epoch": None}
            for weights in WEIGHTS:
                save_network(net, work / f"{weights}.safetensors", header)
            training = {"seconds": 0.0, "epochs": 0, "steps": 0}
            whole = not is_sharded(stage)  # else it may not fit on a device
            device = distributed.device(stage.trainer) if whole else torch.device("cpu")
            fit.finish(net, work, data, device, training)

    return Trained.read(*artifacts.make(root, "given", found, evaluate, since))


def _ensemble(node: DictConfig, members: list[Trained], weights: str, root: Path, since: float) -> Trained:
    """Returns the artifact of the members' combined predictions; fits and fills in learned weights."""
    found: dict[str, Any] = {"combine": node.get("combine", "probability"), "weights": node.get("weights")}
    if isinstance(found["weights"], ListConfig):
        found["weights"] = list(found["weights"])
    found["members"] = [f"{one.folder.parent.name}/{one.folder.name}" for one in members]  # named by their content
    found |= {"kind": weights, **made_with({})}

    def combine(work: Path) -> None:
        if not distributed.is_main():
            return
        known = [split for split in (*SPLITS, TRAIN) if all((weights, split) in one.predictions for one in members)]
        predictions = {split: [member.predictions[weights, split] for member in members] for split in known}
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

    made = Trained.read(*artifacts.make(root, "ensemble", found, combine, since))
    node.weights = made.facts["weights"]
    return made


def _assistant_stage(cfg: DictConfig, number: int, network: DictConfig, teaching: TeacherSetup) -> DictConfig:
    """Returns the stage of an assistant, which learns from the one before it, with a seed of its own."""
    seed = cfg.stages.teacher.seed + number
    stage = factory.stage_config(_with(cfg, {"student": network, "seed": seed}), "student")
    stage.sources = teaching.stage.sources
    return stage


def _assistant(stage: DictConfig, name: str, teaching: TeacherSetup, root: Path) -> Trained:
    files = [digest(read_state(node.checkpoint)) for node in networks(stage.sources)]
    data, reference = factory.data(stage), teaching.record()
    found = recipe(stage, "assistant", data, sources=without_files(stage.sources)) | {"weights": files}
    stage = cached(stage, root, data)

    def train(work: Path) -> None:
        fit.run(
            stage, name, work, work / "tensorboard", data,
            lambda: factory.distillation_module(stage, data.num_classes, factory.sources(stage), reference),
        )  # fmt: skip

    return Trained.read(*artifacts.make(root, "assistant", found, train, artifacts.oldest(stage)))
