"""Runs one training from its first step to its finished folder: teacher, control or student."""

import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig
from torch import nn

from tutelage.checkpoints.weights import about, digest, load_into, read_state, save_network
from tutelage.config import factory, optimizers
from tutelage.config.plan import JobPlan
from tutelage.config.trainer_arguments import check_lengths
from tutelage.config.turns import training_data
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.evaluation.cost import multiply_adds, parameters, total
from tutelage.evaluation.predictions import Stored, measure
from tutelage.evaluation.results import AVERAGE, SPLITS, WEIGHTS, write_results
from tutelage.models.wrapper import deployed
from tutelage.runtime import distributed, manifest
from tutelage.runtime.files import remove_temporary_files, write_atomically
from tutelage.runtime.json_files import read_json
from tutelage.runtime.signals import sigterm_saves
from tutelage.sources.base import Source
from tutelage.tasks.base import Task
from tutelage.tasks.predictions import TRAIN
from tutelage.training import loggers
from tutelage.training.callbacks.average_best import AverageBest
from tutelage.training.callbacks.best import BestLostError
from tutelage.training.callbacks.gradient_norms import GradientNorms
from tutelage.training.callbacks.recovery import Recovery, keep_newest, newest_intact
from tutelage.training.compiled import compiled
from tutelage.training.fsdp import Sharded
from tutelage.training.module import SupervisedModule

log = logging.getLogger(__name__)

_SAMPLE = 10_000  # of the training examples
_SMALL = 1e7  # forward multiply-adds of a batch below which a CPU is probably faster than a GPU


def run(
    stage: DictConfig,
    name: str,
    folder: Path,
    tensorboard_dir: Path,
    data: Data,
    module: Callable[[], SupervisedModule],
) -> None:
    """Trains, resuming an earlier attempt, and finishes the folder.

    Args:
        stage: the config as this stage sees it.
        name: teacher, control or student.
        folder: for weights, predictions and ``stage.json``; its manifest marks the stage as finished.
        tensorboard_dir: for TensorBoard's event files.
        data: loaded.
        module: creates the LightningModule; not called for a finished stage.

    Raises:
        TutelageError: nothing was trained or validated, or a source that must not change has changed.
    """
    if not distributed.broadcast(_is_finished(folder, stage.trainer.max_epochs)):
        optimizers.try_optimizer(stage, name, len(data.train_dataloader()))
        check_lengths(stage.trainer, name, len(data.train_dataloader()), len(data.val_dataloader()), stage.callbacks)
        try:
            _train(stage, name, folder, tensorboard_dir, data, module())
        except BestLostError as error:  # the epochs before the state must be trained again
            log.warning("%s: %s; training starts from the beginning", name, error)
            if distributed.is_main():
                shutil.rmtree(folder / "states", ignore_errors=True)  # none, if it was lost before the first
            distributed.barrier()
            _train(stage, name, folder, tensorboard_dir, data, module())
    if distributed.is_main():
        states = folder / "states"
        if name == "student" and stage.callbacks.recovery.get("extendable", True):
            keep_newest(states, 1)
        else:  # artifacts have one length
            shutil.rmtree(states, ignore_errors=True)


def check_stages(plan: JobPlan, data: Data) -> None:
    """Checks the optimizers, schedules, lengths and trainers of all stages before the first of them is trained.

    Args:
        plan: of the job.
        data: the student's, loaded.

    Raises:
        TutelageError: names the stage and the argument.
    """
    phases = {f"student, phase {name},": own for name, own in plan.phases.items()}
    for name, own in {
        "teacher": plan.stages["teacher"],
        **phases,
        "student": plan.student,
        "control": plan.control,
    }.items():  # the control follows the student
        same = own.data == plan.student.data  # else they are known when it begins
        known = len(training_data(own, data).train_dataloader()) if same else None
        optimizers.try_optimizer(own, name, known)
        if known is not None:
            check_lengths(own.trainer, name, known, len(data.val_dataloader()), own.callbacks)
        factory.try_trainer(own)


def _is_finished(folder: Path, epochs: int) -> bool:
    """Checks whether an earlier attempt finished the folder; one that was damaged since is set aside.

    One that was trained for less than ``epochs`` is not finished, and goes on from its last state. Of one that is not
    finished what a kill has left half written is removed.
    """
    if not distributed.is_main():
        return False
    remove_temporary_files(folder)
    if not (folder / manifest.NAME).exists():
        return False
    if problems := manifest.problems(folder):
        recipe = folder / "recipe.json"
        content = recipe.read_bytes() if recipe.is_file() else None
        manifest.set_aside(folder, next(iter(problems.values())))
        if content is not None:
            write_atomically(recipe, content)
        return False
    if read_json(folder / "stage.json").get("max_epochs", epochs) < epochs:
        (folder / manifest.NAME).unlink()
        return False
    return True


def _train(
    stage: DictConfig, name: str, folder: Path, tensorboard_dir: Path, data: Data, learner: SupervisedModule
) -> None:
    learner.about |= data.known_names
    trainer = factory.trainer(stage, name, folder, tensorboard_dir, len(data.train_dataloader()))
    facts: dict[str, Any] = {}
    if sharded := isinstance(trainer.strategy, Sharded):  # it can't be counted for shards
        facts["multiply_adds"] = multiply_adds(deployed(learner.student.net.net), data.sample(1))
    if stage.graph == "never":
        warn_of_small_steps(learner, data, trainer.strategy.root_device, name)
    state = _state_to_go_on_from(folder / "states")
    at = loggers.place(stage, name, folder, tensorboard_dir)
    logged = loggers.training(stage, at, trainer.loggers)
    with sigterm_saves(), threads(learner, data), logged, compiled(learner, stage.compile):
        trainer.fit(learner, datamodule=data, ckpt_path=state, weights_only=True)
    if trainer.global_step == 0:
        raise TutelageError(f"{name}: no optimizer step was made")
    if distributed.is_main() and not (folder / "best.safetensors").is_file():
        raise not_validated(name)
    for source in learner.sources().values():
        source.verify()
    averages = [one for one in trainer.callbacks if isinstance(one, AverageBest)]  # type: ignore[attr-defined]
    for average in averages:
        average.check(folder)
    if distributed.is_main() or sharded:
        _finish(learner, trainer, folder, data, facts)
    distributed.barrier()


def _state_to_go_on_from(folder: Path) -> Path | None:
    """Returns the newest intact state that rank 0 finds, as this rank's own path (mounts may differ)."""
    found = newest_intact(folder) if distributed.is_main() else None
    name = distributed.broadcast(found and found.name)
    return folder / name if name else None


def not_validated(name: str) -> TutelageError:
    """Returns the error for a training without best weights."""
    return TutelageError(
        f"{name}: validation never ran, so there are no best weights; see trainer.max_steps and "
        "trainer.check_val_every_n_epoch"
    )


@contextmanager
def threads(learner: SupervisedModule, data: Data) -> Iterator[None]:
    """Context manager that limits torch to one thread if a batch is too little work to share.

    The limit, 20 M multiply-adds forward, lies between the digits' pair (11 M, faster on one thread) and cnn → dense on
    MNIST (24 M, a tenth faster on two). ``OMP_NUM_THREADS`` takes precedence.
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ and _work(_networks(learner), data) < 2e7:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def warn_of_small_steps(learner: SupervisedModule, data: Data, device: torch.device, name: str) -> None:
    """Warns if a GPU would mostly wait for Python.

    The limit, 10 M multiply-adds forward, lies between two trainings that an H200 and two CPU cores were measured on at
    batch 64: of the dense student on MNIST (1.6 M; 275 against 945 steps a second) and of its CNN teacher (22 M; 258
    against 165).

    Args:
        learner: all of its networks are counted.
        data: has the size of a batch.
        device: where it trains.
        name: of the stage.
    """
    if device.type == "cpu" or not distributed.is_main() or (work := _work(_networks(learner), data)) >= _SMALL:
        return
    log.warning(
        "%s: a step of %.2g M multiply-adds forward is too small for a GPU, which would mostly wait for Python: a "
        "CPU is probably faster (trainer.accelerator=cpu), or use a larger data.batch_size, or train many jobs "
        "together (launcher=stacked)",
        name, work / 1e6,
    )  # fmt: skip


def _networks(learner: SupervisedModule) -> list[nn.Module]:
    found = (source.network() for source in learner.sources().values())
    return [net.net for net in found if net is not None]


def _work(nets: Iterable[nn.Module], data: Data) -> float:
    """Returns the multiply-adds of a batch; infinity if they are not known."""
    each = total(multiply_adds(net, data.sample(1)) for net in nets)
    return math.inf if each is None else data.batch_size * each


def _finish(learner: SupervisedModule, trainer: L.Trainer, folder: Path, data: Data, facts: dict[str, Any]) -> None:
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    seconds = next(callback.seconds for callback in callbacks if isinstance(callback, Recovery))
    lengths = {"epochs": trainer.current_epoch, "max_epochs": trainer.max_epochs, "steps": trainer.global_step}
    training = {**facts, "seconds": seconds, **lengths}
    header = {**learner.about, "epoch": trainer.current_epoch - 1}
    device = trainer.strategy.root_device
    for name, made in learner.trained_beside().items():
        about_it = {**learner.about_beside(name), "epoch": header["epoch"]}
        save_network(made.net, folder / name / "last.safetensors", about_it)
        finish(made.net, folder / name, data, learner.task, device, training)
    net = learner.written
    save_network(net, folder / "last.safetensors", header)
    if learner.average is not None:
        save_network(deployed(learner.student.net.net), folder / "raw.safetensors", header)
    for callback in callbacks:
        if isinstance(callback, AverageBest):
            callback.write(learner, data, folder, device)
    measured = next((callback.measured for callback in callbacks if isinstance(callback, GradientNorms)), {})
    compared = not learner.task.keeps_logits and learner.teaching  # the control is an artifact, of no teacher
    teacher = learner.teacher_on_validation() if compared else None
    finish(net, folder, data, learner.task, device, {**training, "gradient_norms": measured}, teacher)


def finish(
    net: nn.Module,
    folder: Path,
    data: Data,
    task: Task,
    device: torch.device,
    training: Mapping[str, Any],
    teacher: Source | None = None,
) -> None:
    """Completes a folder with ``last`` and ``best`` weights, or ``average``: writes predictions and ``stage.json``.

    For a sharded network every rank must call this; rank 0 writes.

    Args:
        net: of the weights in ``folder``.
        folder: of the stage.
        data: loaded.
        task: how the network is measured.
        device: where it is.
        training: facts for ``stage.json``.
        teacher: for tasks that can't compare stored predictions.
    """
    kinds = [one for one in (*WEIGHTS, AVERAGE) if (folder / f"{one}.safetensors").is_file()]
    epochs = {weights: about(folder / f"{weights}.safetensors")["epoch"] for weights in kinds}
    facts = {"parameters": parameters(net), **training}
    if "multiply_adds" not in facts:
        facts["multiply_adds"] = multiply_adds(net.cpu(), data.sample(1))
    predictions: dict[tuple[str, str], Stored] = {}
    own: dict[str, dict[str, float]] = {}
    loaders = {split: data.whole(split) for split in SPLITS}
    if (sample := data.labelled(_SAMPLE)) is not None:
        loaders[TRAIN] = sample
    weights_of = {weights: digest(read_state(folder / f"{weights}.safetensors")) for weights in kinds}
    first = kinds[0]
    for weights in kinds:
        load_into(net, folder / f"{weights}.safetensors")
        for split, loader in loaders.items():
            if weights != first and weights_of[weights] == weights_of[first]:  # the last epoch was the best
                predictions[weights, split] = predictions[first, split]
                own[f"{weights}.{split}"] = own[f"{first}.{split}"]
                continue
            beside = None if teacher is None or split == TRAIN else teacher.to(device, torch.float32)  # after bf16-true
            found = measure(net.to(device, torch.float32), loader, device, task, beside)
            predictions[weights, split], own[f"{weights}.{split}"] = found
    if distributed.is_main():
        metrics = {"metrics": own} if task.metrics else {}
        write_results(folder, predictions, {**facts, **metrics, "epoch": epochs})
