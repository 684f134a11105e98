"""Trains a stack from its first step to the finished folders of all its trainings."""

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tutelage.checkpoints.weights import save_network
from tutelage.config import factory
from tutelage.config.plan import replaced
from tutelage.data.module import Data
from tutelage.pipeline import fit
from tutelage.runtime.signals import sigterm_saves
from tutelage.seeding import reseed
from tutelage.sources.base import Source
from tutelage.stacked.data import StackedData
from tutelage.stacked.module import Learner, StackedModule
from tutelage.stacked.stack import settings_of
from tutelage.stacked.tensors import state_of
from tutelage.training import loggers
from tutelage.training.callbacks.recovery import Recovery, newest_intact
from tutelage.types import Batch

log = logging.getLogger(__name__)

_TOLERANCE = 1e-3  # relative to a gradient's greatest element, in float32: far above rounding, far below any error
_FLOOR = 1e-2  # of the greatest gradient: that of a bias before a batch norm is only rounding noise


def sort_learners(learners: Sequence[Learner]) -> list[Learner]:
    """Sorts by seed, and within a seed by the optimizer's settings, as :class:`~tutelage.stacked.stack.Stack` needs."""
    return sorted(learners, key=lambda one: (one.stage.data.seed, str(settings_of(one.module))))


def train(
    stage: DictConfig,
    learners: Sequence[Learner],
    teaching: Mapping[str, Source],
    reference: Source | None,
    data: Data,
    root: Path,
) -> int:
    """Trains a stack, or resumes an interrupted one, and finishes the folder of each training.

    Args:
        stage: the config of any of the trainings.
        learners: the trainings.
        teaching: name → source.
        reference: source of the logits for fidelity on validation.
        data: loaded data.
        root: folder of the stacks' recovery states.

    Returns:
        The number of trainings that could not be finished because their losses were not finite.

    Raises:
        MismatchError: the stack does not compute what each training would compute alone.
    """
    folder = place(root, learners)
    module = StackedModule(learners, teaching, reference, data.sample(2)["input"])
    check_equivalence(module, learners, teaching, data)
    trainer = _trainer(stage, folder, len(data.train_dataloader()))
    state = newest_intact(folder / "states")
    with sigterm_saves(), ExitStack() as runs:
        for one in learners:
            runs.enter_context(loggers.training(one.stage, one.at, one.loggers))
        trainer.fit(module, datamodule=StackedData(data, module.stack.seeds), ckpt_path=state, weights_only=True)
    for source in module.stack.teaching.values():
        source.verify()  # type: ignore[operator]
    for index in range(len(learners)):
        if module.sound[index]:
            _finish(module, index, trainer, data)
        for logger in learners[index].loggers:
            logger.finalize("success")
    if folder.is_dir():
        shutil.rmtree(folder)
    return int((~module.sound).sum())


def place(root: Path, learners: Sequence[Learner]) -> Path:
    """Returns the folder of a stack's recovery states, named by a digest of its learners' folders."""
    names = "\n".join(str(learner.folder) for learner in learners)
    return root / hashlib.sha256(names.encode()).hexdigest()[:20]


def _trainer(stage: DictConfig, folder: Path, batches: int) -> L.Trainer:
    callbacks = {name: stage.callbacks.get(name) for name in ("progress", "recovery")}
    own = replaced(stage, {"callbacks": OmegaConf.create(callbacks), "logger": OmegaConf.create({}), "graph": "never"})
    return factory.trainer(own, "stack", folder, folder, batches)


def _finish(module: StackedModule, index: int, trainer: L.Trainer, data: Data) -> None:
    """Writes the folder as :func:`tutelage.pipeline.fit.run` does."""
    learner = module.learners[index]
    if module.best_epoch[index] < 0:
        raise fit.not_validated(learner.module.about["stage"])
    net, folder = learner.module.student.net.net, learner.folder
    best = {**learner.module.about, "epoch": int(module.best_epoch[index])}
    last = {**learner.module.about, "epoch": trainer.current_epoch - 1}
    for whole, name, header in ((module.best, "best", best), (module.stack.net, "last", last)):
        net.load_state_dict(state_of(whole, index), assign=True)
        save_network(net.to(memory_format=torch.channels_last), folder / f"{name}.safetensors", header)
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    seconds = next(callback.seconds for callback in callbacks if isinstance(callback, Recovery))
    together = len(module.learners)
    facts = {"seconds": seconds / together, "epochs": trainer.current_epoch, "steps": trainer.global_step}
    fit.finish(
        net,
        folder,
        data,
        learner.module.task,
        trainer.strategy.root_device,
        {**facts, "gradient_norms": module.gradient_norms_of(index), "stacked": together},
    )


class MismatchError(Exception):
    """A stack would not compute what its jobs would compute alone."""


def check_equivalence(
    module: StackedModule, learners: Sequence[Learner], teaching: Mapping[str, Source], data: Data
) -> None:
    """Compares the loss and the gradients of the first and the last job's first step with the same step alone.

    Raises:
        MismatchError: they differ by more than rounding, or the stack cannot be computed.
    """
    batch = next(iter(StackedData(data, module.stack.seeds).train_dataloader()))
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    try:
        module.train()
        module.make_optimizer()
        masks = module.stack.dropout.draw(0, 0, batch["input"].shape[1], batch["input"])
        losses, _ = module.stack.losses(batch, masks)
        losses.sum().backward()
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise MismatchError(f"torch.func.vmap fails on this network or objective: {reason}") from error
    together = module.stack.gradients()
    module.load_state_dict(state)
    for index in {0, len(learners) - 1}:
        seed = index // module.stack.cells
        own = {name: tensor[seed] for name, tensor in batch.items()}
        loss, alone = _alone(learners[index], own, teaching)
        pairs = [(losses[index].detach(), loss), *((together[name][index], alone[name]) for name in alone)]
        floor = _FLOOR * max(float(gradient.abs().max()) for gradient in alone.values())
        for a, b in pairs:
            if not torch.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * max(float(b.abs().max()), floor)):
                raise MismatchError("a step of the stack gives other gradients than a step alone")


def _alone(learner: Learner, batch: Batch, teaching: Mapping[str, Source]) -> tuple[Tensor, dict[str, Tensor]]:
    one = learner.module
    one.train()
    state = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    reseed(batch["input"].device, one.seed, "step", 0, 0, 0)
    teachers = {name: source(batch) for name, source in teaching.items() if name in one.needs}
    loss, _ = one.objective({"batch": batch, "student": one.student(batch), **teachers})
    parts = (("student", one.student), ("objective", one.objective))
    named = {f"{part}.{name}": p for part, module in parts for name, p in module.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    one.load_state_dict(state)
    gradients = zip(named, found, strict=True)
    return loss.detach(), {name: gradient for name, gradient in gradients if gradient is not None}
