"""The LightningModule of many students that train as one; each has its own curves, metrics and best weights."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch import Tensor

from tutelage.compat.lightning import logging_step
from tutelage.errors import TutelageError, nearest
from tutelage.runtime import devices, job
from tutelage.sources.base import Source
from tutelage.stacked.stack import Stack, settings_of
from tutelage.training.callbacks.best import KEY, monitored
from tutelage.training.callbacks.gradient_norms import compared, is_due, is_finite
from tutelage.training.callbacks.heartbeat import Heartbeat
from tutelage.training.loggers import LoggedRun
from tutelage.training.module import SupervisedModule
from tutelage.types import Batch


@dataclass(frozen=True)
class Learner:
    """One training of a stack.

    Attributes:
        stage: its config.
        module: the module for training it alone, after its dry run.
        at: its folders; ``at.folder`` is for its weights, predictions and ``stage.json``.
        loggers: loggers of its curves.
        zeroed: terms that it has with weight 0 only because the stack has them.
    """

    stage: DictConfig
    module: SupervisedModule
    at: LoggedRun
    loggers: Sequence[Logger]
    zeroed: frozenset[str] = frozenset()

    @property
    def folder(self) -> Path:
        """Returns the folder of its weights."""
        return self.at.folder

    def has(self, metric: str) -> bool:
        """Checks whether it would log this metric if trained alone: of its own terms, gradients only of several."""
        return not self.zeroed or not (metric.startswith("grad_") or metric.rpartition("/")[2] in self.zeroed)


class StackedModule(L.LightningModule):
    """Trains K students at once, each as :class:`~tutelage.training.module.SupervisedModule` would alone.

    A job whose loss is not finite is excluded from then on.

    Args:
        learners: one per job, sorted by :func:`~tutelage.stacked.train.sort_learners`.
        teaching: name → source, shared by all and not trained.
        reference: source of the logits for fidelity on validation.
        example: a batch of images.

    Attributes:
        sound: [K] bool, the jobs whose losses have been finite.
    """

    sound: Tensor
    best_value: Tensor
    best_epoch: Tensor

    def __init__(
        self,
        learners: Sequence[Learner],
        teaching: Mapping[str, Source],
        reference: Source | None,
        example: Tensor,
    ):
        super().__init__()
        self.learners, self.reference = list(learners), reference
        self.modules_alone = [learner.module for learner in learners]
        self.stack = Stack(self.modules_alone, [learner.stage.data.seed for learner in learners], teaching, example)
        self.best = deepcopy(self.stack.net)
        self.register_buffer("best_value", torch.full((len(learners),), -torch.inf))
        self.register_buffer("best_epoch", torch.full((len(learners),), -1))
        self.register_buffer("sound", torch.ones(len(learners), dtype=torch.bool))
        self.task = self.modules_alone[0].task
        self.about = {"stage": f"{len(learners)} together"}
        self.gradient_norms: dict[int, dict[str, Tensor]] = {}
        self._sums: dict[str, Tensor] = {}

    # -- training -----------------------------------------------------------------------------------------------------

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Returns one optimizer with a parameter group for every distinct setting, such as a learning rate."""
        groups, self._group_of = self.stack.parameter_groups([settings_of(module) for module in self.modules_alone])
        return self.modules_alone[0].optimizer(groups)

    def configure_optimizers(self) -> Any:
        """Returns the optimizer and the shared scheduler."""
        first, optimizer = self.modules_alone[0], self.make_optimizer()
        if first.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": first.schedule(optimizer, self.trainer)}

    def on_train_start(self) -> None:
        """Connects every job's heartbeat to its metrics."""
        [beat] = [one for one in self.trainer.callbacks if isinstance(one, Heartbeat)]  # type: ignore[attr-defined]
        index = {learner.folder.parent: i for i, learner in enumerate(self.learners)}  # a student's is in its job's
        job.sign_of_life.show(
            lambda folder: {**beat.figures(self.trainer, self), "best": self._best(index.get(folder))}
        )
        self.on_train_epoch_start()

    def _best(self, index: int | None) -> float | None:
        known = index is not None and self.best_epoch[index] >= 0
        return abs(float(self.best_value[index])) if known else None

    def on_train_epoch_start(self) -> None:
        """Starts the epoch for every job's scheduled terms and losses."""
        self.stack.begin_epoch(self.modules_alone, self.current_epoch, int(self.trainer.max_epochs or 0))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the sum of all objectives; as each depends only on its own weights, each gets its own gradient."""
        images = batch["input"]
        masks = self.stack.dropout.draw(self.current_epoch, batch_idx, images.shape[1], images)
        losses, parts = self.stack.losses(batch, masks)
        if len(parts) > 1 and is_due(self.trainer, batch_idx, len(parts)):
            self._measure(parts)
        due = (self.global_step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if due or not devices.waits(self.device):
            self.sound &= losses.detach().isfinite()
        if due:
            named = {"train/loss": losses.detach(), **{f"train/{name}": part.detach() for name, part in parts.items()}}
            groups = self.trainer.optimizers[0].param_groups
            rates = torch.tensor([float(groups[i]["lr"]) for i in self._group_of])
            self._write({**named, "train/learning_rate": rates})
            self.log("train/loss", losses.detach().mean(), prog_bar=True, batch_size=len(images))
        return torch.where(self.sound, losses, 0.0).sum()

    def _measure(self, parts: Mapping[str, Tensor]) -> None:
        """Records the norm and the cosine of each term's gradient for every student.

        As :class:`~tutelage.training.callbacks.gradient_norms.GradientNorms` does for a single one.
        """
        figures: dict[str, Tensor] = {}
        for name, (norm, cosine) in compared(self.stack.gradients_of_terms(parts)).items():
            figures |= {f"grad_norm/{name}": norm, f"grad_cosine/{name}": cosine}
        self.gradient_norms[self.current_epoch] = figures

    def gradient_norms_of(self, index: int) -> dict[int, dict[str, list[float]]]:
        """Returns one job's recorded gradients: epoch → term → [norm, cosine]."""
        terms = list(self.modules_alone[0].objective.terms)
        if self.learners[index].zeroed:
            return {}
        found = {
            epoch: {
                term: [float(values[f"{kind}/{term}"][index]) for kind in ("grad_norm", "grad_cosine")]
                for term in terms
            }
            for epoch, values in self.gradient_norms.items()
        }
        return {epoch: of_terms for epoch, of_terms in found.items() if is_finite(of_terms)}

    def on_train_epoch_end(self) -> None:
        """Writes this epoch's gradient norms at the step where Lightning would."""
        if self.current_epoch in self.gradient_norms:
            self._write(self.gradient_norms[self.current_epoch], -1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the recorded gradients to the checkpoint."""
        checkpoint["gradient_norms"] = self.gradient_norms

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the recorded gradients."""
        self.gradient_norms = checkpoint["gradient_norms"]

    def _write(self, figures: Mapping[str, Tensor], shift: int = 0) -> None:
        """Writes every job's curves as Lightning would for it alone; at an epoch's end with ``shift`` −1."""
        step = logging_step(self.trainer) + shift
        by_job = {name: values.tolist() for name, values in figures.items()}
        for i, learner in enumerate(self.learners):
            own = {name: values[i] for name, values in by_job.items() if learner.has(name)}
            if not own:
                continue
            for logger in learner.loggers:
                logger.log_metrics({**own, "epoch": self.current_epoch}, step)

    # -- validation ---------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Resets the sums."""
        self._sums = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds up accuracy, NLL and fidelity over examples, for every job."""
        parts = batch["input"].split(64)  # limits the memory of all students' activations
        logits, label = torch.cat([self.stack.logits(part) for part in parts], 1).float(), batch["label"]
        log_p, choice = logits.log_softmax(-1), logits.argmax(-1)
        true = label.expand(len(logits), -1)
        found: dict[str, Tensor] = {
            "count": torch.tensor(label.numel()),
            "val/accuracy": (choice == label).sum(1),
            "val/nll": F.nll_loss(log_p.movedim(-1, 1), true, reduction="none").sum(1),
        }
        reference = self.reference or self.teaching_on_validation()
        if reference is not None:
            log_q = reference(batch)["logits"].float().log_softmax(-1)
            found["val/agreement"] = (choice == log_q.argmax(-1)).sum(1)
            found["val/kl_teacher"] = (log_q.exp() * (log_q - log_p)).sum((1, 2))
        self._sums = {name: self._sums[name] + value if self._sums else value for name, value in found.items()}

    def teaching_on_validation(self) -> Source | None:
        """Returns the teacher, if it supports validation images."""
        found = [cast(Source, one) for name, one in self.stack.teaching.items() if name == "teacher"]
        return found[0] if found and found[0].supports_validation else None

    def on_validation_epoch_end(self) -> None:
        """Logs every job's metrics and keeps its best weights so far; ties keep the earlier epoch."""
        count = self._sums.pop("count")
        figures = {name: total / count for name, total in self._sums.items()}
        finite = torch.stack([values.isfinite() for values in figures.values()]).all(0)
        self.sound &= finite
        best = self.learners[0].stage.callbacks.best
        monitor, mode = monitored(KEY, best.get("monitor"), best.get("mode"), self.task)
        if monitor not in figures:
            raise TutelageError(f"{KEY}.monitor: no metric {monitor!r}; {nearest(monitor, figures)}")
        value = figures[monitor] if mode == "max" else -figures[monitor]
        better = finite & (value > self.best_value)
        self.best_value.copy_(torch.where(better, value, self.best_value))
        self.best_epoch[better] = self.current_epoch
        kept_weights, now = self.best.state_dict(), self.stack.net.state_dict()
        for name, kept in kept_weights.items():
            kept[better] = now[name][better]
        self._write(figures)
        self.log("val/accuracy", figures["val/accuracy"].mean(), prog_bar=True)
