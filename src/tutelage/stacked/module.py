"""The LightningModule of many students that train as one: tensors with a leading dimension K, one pass for all."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.func import functional_call, vmap

from tutelage import job
from tutelage.callbacks.heartbeat import Heartbeat
from tutelage.callbacks.pulls import is_due
from tutelage.modules.supervised import SupervisedModule
from tutelage.objective import Batch, Signals, Term
from tutelage.sources.base import Source
from tutelage.stacked.layers import Chance
from tutelage.stacked.tensors import joined, parts_of, stacked


@dataclass(frozen=True)
class Learner:
    """One training among those that go together.

    Attributes:
        module: as it would be trained alone, having met its data.
        data_seed: of its order and augmentation.
        folder: for its weights, predictions and ``stage.json``.
        loggers: of its curves.
        best: what its best weights are chosen by: ``{"monitor": …, "mode": …}``.
    """

    module: SupervisedModule
    data_seed: int
    folder: Path
    loggers: Sequence[Logger]
    best: Mapping[str, str]


class _One(nn.Module):
    """What one job computes of a batch and what the teachers say of it."""

    def __init__(self, module: SupervisedModule):
        super().__init__()
        self.student, self.objective = module.student, module.objective

    def forward(self, batch: Batch, teachers: dict[str, Signals]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.objective({"batch": batch, "student": self.student(batch), **teachers})


class StackedModule(L.LightningModule):
    """Trains K students at once, each as :class:`~tutelage.modules.supervised.SupervisedModule` would alone.

    ``torch.func.vmap`` over (seed, cell): jobs that share a seed share their batch; where every seed has equally many
    jobs, an image is fetched and multiplied once a seed, else once a job. The optimizer sees the tensors in runs of
    jobs with equal settings; as it works element by element, each job gets its own updates. A job whose loss is not
    finite is left out from then on (:attr:`sound`).

    Args:
        learners: one a job, sorted by :func:`in_order`, alike but for tensors, dropout rates and seeds.
        teaching: name → source, the same for all; none of them learns.
        reference: whose logits they are compared with on validation.
        example: a batch of images, to learn where dropout is called.
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
        modules = [learner.module for learner in learners]
        self.learners, self.reference = list(learners), reference
        self.teaching = nn.ModuleDict({name: source for name, source in teaching.items() if name in modules[0].needs})
        self.seeds, self.cells = layout([learner.data_seed for learner in learners])
        self.chance = Chance([module.student.net for module in modules], [m.seed for m in modules], example)
        self.one = stacked([_One(module) for module in modules])
        self.masks = self.chance.install(self.one.student)
        self.best = deepcopy(self.one.student.net.net)
        self.register_buffer("best_value", torch.full((len(learners),), -torch.inf))
        self.register_buffer("best_epoch", torch.full((len(learners),), -1))
        self.register_buffer("sound", torch.ones(len(learners), dtype=torch.bool))
        self.about = {"stage": f"{len(learners)} {modules[0].about['stage']}s"}
        self._parts: dict[str, list[nn.Parameter]] = {}
        self._sums: dict[str, Tensor] = {}
        self.pulls: dict[int, dict[str, Tensor]] = {}

    # -- the computation ----------------------------------------------------------------------------------------------

    def _split(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """[K, …] → [S, K / S, …]."""
        return {name: tensor.unflatten(0, (len(self.seeds), self.cells)) for name, tensor in tensors.items()}

    def losses(self, batch: Batch, masks: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Of all jobs: totals [K] and unweighted parts [K] by term, of a batch [S, B, …] and masks [K, B, …]."""
        state = {**dict(self.one.named_buffers()), **{name: joined(whole, self._parts[name])
                 for name, whole in self.one.named_parameters()}}  # fmt: skip
        rows, constant = self._teachers(batch)

        def one(state: dict[str, Tensor], masks: list[Tensor], batch: Batch, rows: dict[str, Signals]) -> Any:
            self.masks[:] = masks
            teachers = {name: {**signals, **constant[name]} for name, signals in rows.items()}
            return functional_call(self.one, state, (batch, teachers))

        cells = vmap(one, in_dims=(0, 0, None, None))
        split = [mask.unflatten(0, (len(self.seeds), self.cells)) for mask in masks]
        total, parts = vmap(cells)(self._split(state), split, batch, rows)
        return total.flatten(), {name: part.flatten() for name, part in parts.items()}

    def _teachers(self, batch: Batch) -> tuple[dict[str, Signals], dict[str, Signals]]:
        """What the teachers say, in one pass for all seeds: by example [S, B, …], and what is the same for all."""
        flat = {name: tensor.flatten(0, 1) for name, tensor in batch.items()}
        shape = batch["key"].shape
        rows: dict[str, Signals] = {}
        constant: dict[str, Signals] = {}
        for name, source in self.teaching.items():
            signals = source(flat)
            rows[name] = {key: x.unflatten(0, shape) for key, x in signals.items() if "." not in key}
            constant[name] = {key: x for key, x in signals.items() if "." in key}
        return rows, constant

    def logits(self, images: Tensor) -> Tensor:
        """Of all jobs for the same images: [K, B, C]."""
        net = self.one.student.net
        state = {**dict(net.named_buffers()), **dict(net.named_parameters())}
        one = vmap(lambda state: functional_call(net, state, (images,))["logits"])
        return vmap(one)(self._split(state)).flatten(0, 1)

    # -- training -----------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """One optimizer; a parameter group for every setting that jobs have, such as a learning rate."""
        modules = [learner.module for learner in self.learners]
        settings = [partial_keywords(module.optimizer) for module in modules]
        runs = [len(list(same)) for _, same in groupby(settings)]
        self._parts = {name: parts_of(whole, runs) for name, whole in self.one.named_parameters()}
        groups: list[dict[str, Any]] = []
        for i, (setting, _) in enumerate(groupby(settings)):
            parameters = [parts[i] for parts in self._parts.values()]
            known = next((group for group in groups if group["setting"] == setting), None)
            if known is None:
                groups.append({"params": parameters, "setting": setting})
            else:
                known["params"] += parameters
        optimizer = modules[0].optimizer([{"params": group["params"], **group["setting"]} for group in groups])
        self._group_of = [next(i for i, group in enumerate(groups) if group["setting"] == one) for one in settings]
        if modules[0].scheduler is None:
            return optimizer
        schedule = {"scheduler": modules[0].scheduler(optimizer), "interval": modules[0].interval}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def gradients(self) -> dict[str, Tensor]:
        """Of the last backward pass, by parameter: [K, …]."""
        grads = {name: [part.grad for part in parts] for name, parts in self._parts.items()}
        return {name: torch.cat(own) for name, own in grads.items() if all(grad is not None for grad in own)}  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        """Offers every job's figures as signs of life."""
        [beat] = [one for one in self.trainer.callbacks if isinstance(one, Heartbeat)]  # type: ignore[attr-defined]
        job.show(lambda: [{**beat.figures(self.trainer, self), "best": best} for best in self._bests()])
        self.on_train_epoch_start()

    def _bests(self) -> list[float | None]:
        values = self.best_value.abs().tolist()
        return [value if epoch >= 0 else None for value, epoch in zip(values, self.best_epoch.tolist(), strict=True)]

    def on_train_epoch_start(self) -> None:
        """Tells every job's terms and losses that have a schedule which epoch it is."""
        for name, module in self.one.objective.named_modules():
            if not callable(getattr(module, "on_epoch_start", None)):
                continue
            own = [learner.module.objective.get_submodule(name) for learner in self.learners]
            for one in own:
                one.on_epoch_start(self.current_epoch, self.trainer.max_epochs)  # type: ignore[operator]
            for key, whole in module.named_buffers(recurse=False):
                whole.copy_(torch.stack([one.get_buffer(key) for one in own]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of all jobs' objectives: each depends on its own weights alone, so each gets its own gradient."""
        images = batch["input"]
        masks = self.chance.draw(self.current_epoch, batch_idx, images.shape[1], images)
        losses, parts = self.losses(batch, masks)
        if len(parts) > 1 and is_due(self.trainer, batch_idx, len(parts)):
            self._measure(parts)
        due = (self.global_step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if due or self.device.type == "cpu":
            self.sound &= losses.detach().isfinite()
        if due:
            named = {"train/loss": losses.detach(), **{f"train/{name}": part.detach() for name, part in parts.items()}}
            groups = self.trainer.optimizers[0].param_groups
            rates = torch.tensor([float(groups[i]["lr"]) for i in self._group_of])
            self._write({**named, "train/learning_rate": rates})
            self.log("train/loss", losses.detach().mean(), prog_bar=True, batch_size=len(images))
        return torch.where(self.sound, losses, 0.0).sum()

    def _measure(self, parts: Mapping[str, Tensor]) -> None:
        """How hard each term pulls at every student: what :class:`~tutelage.callbacks.pulls.Pulls` measures alone."""
        leaves = [own for name, own in self._parts.items() if name.startswith("student.")]
        gradients: dict[str, Tensor] = {}
        for name, part in parts.items():
            loss = (cast(Term, self.one.objective.terms[name]).scale * part).sum()
            found = iter(torch.autograd.grad(loss, [*chain(*leaves)], retain_graph=True, materialize_grads=True))
            whole = [torch.cat([next(found) for _ in own]).flatten(1).float() for own in leaves]
            gradients[name] = torch.cat(whole, 1)
        total = torch.stack(list(gradients.values())).sum(0)
        figures: dict[str, Tensor] = {}
        for name, own in gradients.items():
            cosine = torch.cosine_similarity(own, total - own, dim=1, eps=1e-12)
            figures |= {f"pull/{name}": own.norm(dim=1), f"pull_cosine/{name}": cosine}
        self.pulls[self.current_epoch] = figures

    def pulls_of(self, index: int) -> dict[int, dict[str, list[float]]]:
        """What was measured of one job: epoch → term → [norm, cosine]."""
        terms = list(self.one.objective.terms)
        return {
            epoch: {term: [float(said[f"{kind}/{term}"][index]) for kind in ("pull", "pull_cosine")] for term in terms}
            for epoch, said in self.pulls.items()
        }

    def on_train_epoch_end(self) -> None:
        """Writes what was measured in this epoch, where Lightning would."""
        if self.current_epoch in self.pulls:
            self._write(self.pulls[self.current_epoch], -1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What was measured goes on with the state."""
        checkpoint["pulls"] = self.pulls

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it back."""
        self.pulls = checkpoint["pulls"]

    def _write(self, figures: Mapping[str, Tensor], shift: int = 0) -> None:
        """Every job's own curves, as Lightning would write them for it alone; at an epoch's end one step earlier."""
        step: int = self.trainer.fit_loop.epoch_loop._batches_that_stepped + shift
        by_job = {name: values.tolist() for name, values in figures.items()}
        for i, learner in enumerate(self.learners):
            own = {name: values[i] for name, values in by_job.items()}
            for logger in learner.loggers:
                logger.log_metrics({**own, "epoch": self.current_epoch}, step)

    # -- validation ---------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Counts from nothing."""
        self._sums = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Sums over examples of accuracy, NLL and fidelity, for every job."""
        logits, label = self.logits(batch["input"]).float(), batch["label"]
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
        """The teacher, if it can be asked about validation images."""
        found = [cast(Source, one) for name, one in self.teaching.items() if name == "teacher"]
        return found[0] if found and found[0].everywhere else None

    def on_validation_epoch_end(self) -> None:
        """Every job's figures, and its weights kept where they are its best so far; ties keep the earlier epoch."""
        count = self._sums.pop("count")
        figures = {name: total / count for name, total in self._sums.items()}
        finite = torch.stack([values.isfinite() for values in figures.values()]).all(0)
        self.sound &= finite
        monitor, mode = self.learners[0].best["monitor"], self.learners[0].best["mode"]
        value = figures[monitor] if mode == "max" else -figures[monitor]
        better = finite & (value > self.best_value)
        self.best_value.copy_(torch.where(better, value, self.best_value))
        self.best_epoch[better] = self.current_epoch
        best, now = self.best.state_dict(), self.one.student.net.net.state_dict()
        for name, kept in best.items():
            kept[better] = now[name][better]
        self._write(figures)
        self.log("val/accuracy", figures["val/accuracy"].mean(), prog_bar=True)


def partial_keywords(optimizer: Any) -> dict[str, Any]:
    """The settings of a partial optimizer: what its parameter groups have of their own."""
    assert isinstance(optimizer, partial)
    return dict(optimizer.keywords)


def layout(data_seeds: Sequence[int]) -> tuple[list[int], int]:
    """The seeds of the outer dimension and the jobs of each: of a job's own seed where seeds have unequally many."""
    runs = [(seed, len(list(same))) for seed, same in groupby(data_seeds)]
    if len({count for _, count in runs}) == 1 and len({seed for seed, _ in runs}) == len(runs):
        return [seed for seed, _ in runs], runs[0][1]
    return list(data_seeds), 1
