"""The LightningModule of a network that learns from labels: a teacher, or the student alone (the control)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn

from tutelage.checkpoints.weights import is_shard
from tutelage.data.module import Data
from tutelage.errors import TutelageError, nearest, tried_out
from tutelage.losses.base import contract, hooks
from tutelage.models.tapped import Tapped
from tutelage.models.wrapper import deployed
from tutelage.objective import Objective, Term
from tutelage.runtime.distributed import broadcast
from tutelage.seeding import reseed, seeded
from tutelage.sources.base import Source
from tutelage.sources.ema_teacher import EMATeacher
from tutelage.sources.live import Live
from tutelage.tasks.base import Task
from tutelage.tasks.classification import Classification
from tutelage.training.dot import hand_over
from tutelage.training.fsdp import Sharded
from tutelage.training.gradient_checks import check_gradients
from tutelage.training.parameter_groups import GroupRules, public_name
from tutelage.training.protocol_checks import check_rows, watched_pass
from tutelage.training.schedule_length import epoch_length, filled, length
from tutelage.types import Batch, Signals

Optimizer = Callable[[Iterable[nn.Parameter] | Iterable[dict[str, Any]]], torch.optim.Optimizer]
Scheduler = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]

_CHOICE = {"peers": "peers", "stale": "stale_peers", "teacher": "frozen"}  # source → what gives it on the command line


class SupervisedModule(L.LightningModule):
    """Trains ``student`` by an objective that reads nothing but it and the batch.

    Logs ``train/loss``, ``train/<term>`` and ``train/learning_rate`` every ``log_every_n_steps``, and on validation the
    task's figures, such as ``val/accuracy`` and ``val/nll``; where there is a teacher or its record also
    ``val/agreement`` and ``val/kl_teacher``. Those of networks trained beside it are ``val/<folder>/<figure>``.

    Args:
        student: the source whose network learns.
        objective: what is minimised.
        optimizer: parameters → optimizer.
        scheduler: optimizer → learning-rate schedule, or None.
        interval: what one step of the schedule is: ``epoch`` or ``step``.
        monitor: the figure on validation that the schedule watches, of ``ReduceLROnPlateau`` alone.
        rules: which parameters have settings of their own in the optimizer.
        task: how the network's answers are measured.
        outputs: width of the last axis of the logits.
        seed: what dropout and every other chance of a step is drawn from, with epoch, batch and rank.
        reference: whose logits the student is compared with on validation, where that is not the source ``teacher``.
        about: plain values that the files of this network carry: model, data, seed, stage.
        networks_beside: config of each network that is trained beside the student, by its folder; else the student's.
        teaching: name → other sources; for :class:`~tutelage.training.distillation.DistillationModule`.
        also_read: source → signals that are read beside those of the objective.
    """

    student: Live
    objective: Objective
    reference: Source | None

    def __init__(
        self,
        student: Live,
        objective: Objective,
        optimizer: Optimizer,
        scheduler: Scheduler | None = None,
        interval: str = "epoch",
        task: Task | None = None,
        outputs: int = 10,
        seed: int = 0,
        reference: Source | None = None,
        about: Mapping[str, Any] | None = None,
        teaching: Mapping[str, Source] = MappingProxyType({}),
        monitor: str | None = None,
        rules: GroupRules | None = None,
        networks_beside: Mapping[str, Any] = MappingProxyType({}),
        also_read: Mapping[str, set[str]] = MappingProxyType({}),
    ):
        super().__init__()
        self.student, self.objective = student, objective
        self.optimizer, self.scheduler, self.interval = optimizer, scheduler, interval
        self.monitor, self.rules = monitor, rules
        self.task, self.seed, self.reference = task or Classification(), seed, reference
        self.validation = self.task.validation(outputs)
        own = objective.needs()
        self.needs = {name: own.get(name, set()) | set(also_read.get(name, ())) for name in {**own, **also_read}}
        self.teaching = nn.ModuleDict({name: source for name, source in teaching.items() if name in self.needs})
        self._offered = ["student", *teaching]
        everyone = self.sources()
        for name, source in everyone.items():
            source.attach(self.needs.get(name, set()), everyone)
        self.validation_beside = nn.ModuleDict(
            {folder: self.task.validation(outputs) for folder in self.trained_beside()}
        )
        self.about, self._networks_beside = dict(about or {}), dict(networks_beside)
        self.average: EMATeacher | None = None  # of the student's weights: callbacks=ema
        self.watch: Callable[[Mapping[str, Tensor], int], None] | None = None  # of a step's terms, with their graph
        self._last_step = 0
        self._ahead: tuple[tuple[int, int], Iterator[Callable[[], Batch]]] | None = None  # where it is, what follows

    def sources(self) -> Mapping[str, Source]:
        """Returns every source by the name that terms use."""
        return {"student": self.student, **dict(self.teaching.items())}  # type: ignore[arg-type]

    @property
    def shown(self) -> Live | EMATeacher:
        """Returns the network that is validated, saved and exported: the student, or the average of its weights."""
        return self.student if self.average is None else self.average

    @property
    def written(self) -> nn.Module:
        """Returns the plain network of :attr:`shown`, which files of weights hold and figures are of."""
        return deployed(self.shown.net.net)

    def trained_beside(self) -> dict[str, Tapped]:
        """Returns the other networks that this training makes, by their folder in the student's."""
        return {
            f"{name}/{part}".rstrip("/"): net
            for name, source in self.sources().items()
            for part, net in source.trained_networks().items()
        }

    def about_beside(self, folder: str) -> dict[str, Any]:
        """Returns what the files of a network of :meth:`trained_beside` carry."""
        own = {"network": self._networks_beside[folder]} if folder in self._networks_beside else {}
        return {**self.about, "stage": folder, **own}

    def check_sources(self) -> None:
        """Refuses an objective that reads a source which is not there.

        Raises:
            TutelageError: names that source, and those that there are.
        """
        for name in self.needs.keys() - {"batch"} - self.sources().keys():
            raise TutelageError(
                f"the objective reads source {name!r}; this stage has {sorted(self._offered)}: "
                + (f"add sources={_CHOICE[name]}" if name in _CHOICE else nearest(name, self._offered))
            )

    def network_device(self) -> torch.device:
        """Returns where the student's weights are now.

        In ``setup``, before the networks are moved, Lightning's ``self.device`` already names where they will be.
        """
        return next(self.student.parameters()).device

    def signals(self, batch: Batch) -> dict[str, Signals]:
        """Returns every source's signals of the batch: name → signals."""
        return {"batch": batch, **{name: source(batch) for name, source in self.sources().items()}}

    def setup(self, stage: str) -> None:
        """Prepares sources and losses before the first step."""
        if stage == "fit":
            self.dry_run(self.trainer.datamodule)  # type: ignore[attr-defined]

    def dry_run(self, data: Data) -> None:
        """Runs the objective once on a few examples: initialises lazy layers and refuses a pair that does not fit.

        Raises:
            TutelageError: the objective reads a missing signal, shapes do not match, a loss compares more examples
                than a rank has in a batch, or nothing would learn from a term.
        """
        self.check_sources()
        check_rows(self.objective, data.batch_size)
        device = self.network_device()
        keys = {split: data.splits[split].keys.to(device) for split in ("train", "val")}
        for source in self.sources().values():
            source.name_classes(data.class_names)
            source.expect(keys)
        batch = data.sample(min(8, data.batch_size))
        training = self.training
        self.eval()
        with torch.enable_grad(), seeded(self.seed, "shapes"):
            if not data.listed:
                self.objective.check_needs_no_list()
            self.objective.bind(data.splits["train"].keys, data.splits["train"].labels)
            try:
                batch = {name: value.to(device) for name, value in batch.items()}
                signals, parts = watched_pass(batch, self.signals, self.objective, self.student)
            except TutelageError:
                raise
            except Exception as error:
                if (why := tried_out(error)) is None:
                    raise
                shape = list(batch["input"].shape)
                raise TutelageError(f"the networks or the objective can't take a batch of {shape}: {why}") from error
        check_gradients(self.objective, parts, signals, self.student)
        self.train(training)
        self.parameter_groups()

    def configure_model(self) -> None:
        """Shards the network for `trainer=fsdp`, once its shapes are known and before the optimizer is made."""
        if isinstance(self.trainer.strategy, Sharded):
            self.trainer.strategy.share_out(self)

    def on_train_start(self) -> None:
        """Calls the epoch-start hook that Lightning skips on resume; sources do not repeat their last step."""
        self._last_step = self.global_step
        self._prepare()
        self.on_train_epoch_start()

    def _prepare(self) -> None:
        """Runs the preparation of losses that first learn from the teacher: whole batches, the same on every rank."""
        for term in self.objective.modules():
            if isinstance(term, Term) and "prepare" in hooks(term.loss):
                contract(term.loss).prepare(partial(self._targets, term))
                term.loss.load_state_dict(broadcast(term.loss.state_dict()))

    def _targets(self, term: Term, epoch: int) -> Iterator[dict[str, Any]]:
        """Yields ``term``'s arguments that come from the teachers, over an epoch of augmented training images."""
        read = {path.split(".")[0] for path in term.paths(term.targets)}
        for batch in self.trainer.datamodule.unaugmented_train_loader(epoch):  # type: ignore[attr-defined]
            batch = self.transfer_batch_to_device(batch, self.device, 0)
            batch = self.trainer.precision_plugin.convert_input(batch)  # as Lightning does before a step
            with torch.no_grad():
                signals = {name: source(batch) for name, source in self.sources().items() if name in read}
            yield term.read_targets({"batch": batch, **signals})

    def on_train_epoch_start(self) -> None:
        """Passes the epoch to terms and losses with a schedule."""
        self.objective.on_epoch_start(self.current_epoch, cast(int, self.trainer.max_epochs))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds this step by (seed, epoch, batch, rank), so that a resumed run draws the same numbers."""
        reseed(self.device, self.seed, "step", self.current_epoch, batch_idx, self.global_rank)
        accumulated = self.trainer.accumulate_grad_batches
        if (accumulated > 1 or self._ahead) and batch_idx % accumulated == 0:
            self._look_ahead(batch, batch_idx, accumulated)

    def _look_ahead(self, batch: Batch, batch_idx: int, accumulated: int) -> None:
        """Tells terms that choose rows of the other batches of this step, which are made once more for it.

        So that their mean over an accumulated step is that over its rows, not one of means over each batch's.
        """
        data = getattr(self.trainer, "datamodule", None)
        count = int(min(accumulated, self.trainer.num_training_batches - batch_idx))
        if accumulated == 1 or not isinstance(data, Data) or not self.objective.chooses_rows:
            self._ahead = None
            self.objective.look_ahead([], self.device)
            return
        place = self.current_epoch, batch_idx
        if self._ahead is None or self._ahead[0] != place:
            self._ahead = place, data.upcoming(*place)
        _, coming = self._ahead
        _, *others = islice(coming, count)
        self._ahead = (self.current_epoch, batch_idx + count), coming
        self.objective.look_ahead([batch, *(make() for make in others)], self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of this batch."""
        loss, parts = self.objective(self.signals(batch))
        if self.watch is not None:
            self.watch(parts, batch_idx)
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            named = {"train/loss": loss.detach(), **{f"train/{name}": part.detach() for name, part in parts.items()}}
            self.log_dict(named, prog_bar=True, sync_dist=True, batch_size=len(batch["input"]))
            self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        return hand_over(self.trainer.optimizers[0], self.objective, loss, parts)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Updates sources once per optimizer step, however many batches it accumulates."""
        if self.global_step != self._last_step:
            self._last_step = self.global_step
            for source in self.sources().values():
                source.after_step()

    def teacher_on_validation(self) -> Source | None:
        """Returns what validation compares the student with, if it supports examples of validation."""
        reference = self.reference or self.sources().get("teacher")
        return reference if reference is not None and reference.supports_validation else None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the task's figures, and fidelity to the teacher."""
        logits, reference = self.shown(batch)["logits"].float(), self.teacher_on_validation()
        teacher = None if reference is None else reference(batch)["logits"].float()
        for name, metric in self.validation.update(logits, batch["label"], teacher).items():
            self.log(f"val/{name}", metric, prog_bar=name == self.task.headline, batch_size=len(batch["input"]))
        for folder, net in self.trained_beside().items():
            measured = self.validation_beside[folder].update(net(batch)["logits"].float(), batch["label"], None)  # type: ignore[operator]
            for name, metric in measured.items():
                self.log(f"val/{folder}/{name}", metric, batch_size=len(batch["input"]))

    def configure_optimizers(self) -> Any:
        """Returns one optimizer for all parameters of networks and losses."""
        optimizer = self.optimizer(self.parameter_groups())
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.schedule(optimizer, self.trainer)}

    def learning(self) -> dict[str, nn.Parameter]:
        """Returns what the optimizer updates, by its name in this module."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def parameter_groups(self) -> Any:
        """Returns what learns as an optimizer takes it: parameters, or groups of them where settings differ.

        Raises:
            TutelageError: a rule that does not fit these parameters.
        """
        if self.rules is not None:
            named = {public_name(name): p for name, p in self.learning().items()}
            elsewhere = None if self._offered == ["student"] else {"loss", *self._offered}
            return self.rules.grouped(named, self.student.net.net, self.optimizer, elsewhere)
        learning = list(self.learning().values())
        groups = [[p for p in learning if is_shard(p) == shards] for shards in (True, False)]
        return [{"params": group} for group in groups] if all(groups) else learning

    def schedule(self, optimizer: torch.optim.Optimizer, trainer: L.Trainer) -> dict[str, Any]:
        """Returns Lightning's config of the schedule; lengths that are null become the training's."""
        assert self.scheduler is not None
        lengths = (partial(self.course, self.interval, trainer, of) for of in (length, epoch_length))
        made = {"scheduler": filled(self.scheduler, *lengths)(optimizer), "interval": self.interval}
        return made if self.monitor is None else {**made, "monitor": self.monitor, "strict": False}

    @staticmethod
    def course(interval: str, trainer: L.Trainer, of: Callable[..., int] = length) -> int:
        """Returns the length of the training, or with ``of=epoch_length`` of an epoch, in epochs or steps."""
        names = ("max_epochs", "max_steps", "limit_train_batches", "accumulate_grad_batches")
        batches = 0 if interval == "epoch" else len(trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        return of(interval, {name: getattr(trainer, name) for name in names}, batches)
