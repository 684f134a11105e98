"""The LightningModule of a student that learns from images that a generator makes in turn with it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.losses.base import hooks
from tutelage.models.generators import Generator
from tutelage.objective import Objective
from tutelage.seeding import seeded
from tutelage.sources.base import Source
from tutelage.training.distillation import DistillationModule
from tutelage.training.gradient_checks import reaches
from tutelage.training.pool import ImagePool
from tutelage.training.schedule_length import epoch_length, filled, length
from tutelage.training.synthesis import Losses, Rounds, Synthesis
from tutelage.training.turns import Turn, Turns
from tutelage.types import Batch, Signals

_OWN = ("generator", "generator_objective")  # modules that the student's optimizer does not see
_FIELDS = ("input", "latent")  # of a batch that a term may read


class AlternatingModule(DistillationModule):
    """A generator and a student that step in turn, each with its own objective, optimizer and schedule.

    A training step is a round: the turns of :class:`~tutelage.training.turns.Turns` in their order. The generator's
    turn makes images, runs teacher and student on them with their graph, and steps on its own objective while the
    student's weights stay; the student's turn makes images without a graph and steps on the objective that every
    student has. The teacher is frozen, gradients pass through it. Batches hold no example
    (:meth:`~tutelage.data.module.Data.without_training`): they say how many images to make. Validation is on real data.
    With :class:`~tutelage.training.synthesis.Synthesis` the generator's turn adds images to a pool, which is part of
    the state, and the student's turn is on images of the pool.

    Lightning's count of steps is that of rounds. Random numbers are torch's, reseeded for every round, so that a
    resumed run goes through the same bits.

    Logs also ``train/generator/loss``, ``train/generator/<term>`` and ``train/generator/learning_rate``.

    Args:
        turns: the method.
        sources: name → source, without the student.
        **supervised: as for :class:`~tutelage.training.module.SupervisedModule`.
    """

    generator: nn.Module
    generator_objective: Objective | None

    def __init__(self, turns: Turns, sources: Mapping[str, Source], **supervised: Any):
        theirs = turns.objective()
        read = {} if theirs is None else theirs.needs()
        super().__init__(sources=sources, also_read=read, **supervised)
        self.automatic_optimization = False
        self.turns, self.generator_objective = turns, theirs
        self.generator = turns.generator.to(memory_format=torch.channels_last)  # as of all
        self.pool = ImagePool()  # empty without a synthesis
        self._reads = {"generator": read, "student": self.objective.needs()}
        self._last_turn = max(i for i, turn in enumerate(turns.order) if turn.player == "student")
        self._beside: torch.optim.Optimizer | None = None  # of the generator's terms, and without a pool of itself
        self._shared: torch.optim.Optimizer | None = None  # of a generator that learns from its rounds
        self._fixed = {name for name, source in self.teaching.items() if not any(True for _ in source.parameters())}

    # -- before the first step ----------------------------------------------------------------------------------------

    def check_sources(self) -> None:
        """Refuses what needs real examples.

        Raises:
            TutelageError: a term reads labels or other fields of a batch, or a loss learns from the training images
                before the first step; or as for every student.
        """
        made = {*_FIELDS} if self.turns.synthesis is None else self.turns.synthesis.fields
        if wrong := sorted(self.needs.get("batch", set()) - made):
            raise TutelageError(
                f"the objective reads batch.{wrong[0]}, which images that a generator makes don't have: leave out the "
                "terms that read it (loss.alpha=1: no label is used)"
            )
        for path, loss in self.objective.losses():
            if found := sorted(hooks(loss) & {"bind", "prepare"}):
                raise TutelageError(
                    f"loss.{path}: {type(loss).__name__} stores or learns something of the training examples "
                    f"({found[0]}), which a student of generated images doesn't have: use another loss"
                )
        super().check_sources()

    def dry_run(self, data: Data) -> None:
        """Runs both objectives once on a few images, as for every student, and the generator's gradient.

        Raises:
            TutelageError: images have another shape than the data, or nothing of the generator would learn; or as for
                every student.
        """
        with seeded(self.seed, "shapes"), torch.no_grad():
            shape = tuple(self.generator.eval()(self._draw(2)).shape[1:])
            self.generator.train()
        if shape != tuple(data.input_shape):
            raise TutelageError(
                f"turns.generator makes images {list(shape)}; those of the data are {[*data.input_shape]}"
            )
        super().dry_run(data)
        if self.generator_objective is None:
            return
        training = self.training
        self.eval()
        with seeded(self.seed, "shapes"), torch.enable_grad():
            made = self._tried(min(8, data.batch_size))
            _, parts = self.generator_objective(self._signals("generator", made))
        self.train(training)
        if not reaches(parts.values(), self.generator.parameters()):
            raise TutelageError(
                f"the generator would learn nothing from {' or '.join(map(repr, parts))}: signals belong to the inputs "
                "of turns.terms, as targets are detached"
            )

    def learning(self) -> dict[str, nn.Parameter]:
        """Returns what the student's optimizer takes: not the generator's."""
        return {name: one for name, one in super().learning().items() if name.partition(".")[0] not in _OWN}

    def configure_optimizers(self) -> Any:
        """Returns the student's optimizer, then those of the generator and its terms; each with its schedule."""
        student, pooled = self.optimizer(self.parameter_groups()), self.turns.synthesis
        made = [(student, self.scheduler and self.schedule(student, self.trainer)["scheduler"], self.interval)]
        learning = _OWN if pooled is None else _OWN[1:]  # with a pool the generator's steps are a round's own
        own = [one for name in learning if self.turns.generates for one in self.get_submodule(name).parameters()]
        if own:
            self._beside = self.turns.optimizer(own)
            schedule = self.turns.scheduler
            if schedule is not None:
                lengths = (partial(self.course, self.turns.interval, self.trainer, of) for of in (length, epoch_length))
                schedule = filled(schedule, *lengths)(self._beside)
            made.append((self._beside, schedule, self.turns.interval))
        if pooled is not None and pooled.start.optimizer is not None:
            self._shared = pooled.start.optimizer(self.generator.parameters())
            made.append((self._shared, None, self.turns.interval))
        self._schedules = [(schedule, interval) for _, schedule, interval in made if schedule is not None]
        return [one for one, _, _ in made], [schedule for schedule, _ in self._schedules]

    # -- a round ------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Plays a round; returns the student's last loss."""
        made, known = {"key": batch["key"]}, dict[str, Signals]()  # images, and what fixed sources say of them
        losses = dict[str, Losses]()
        for place, turn in enumerate(self.turns.order):
            if turn.player == "generator" and turn.images == "pool":
                losses[turn.player] = self._pool_turn(turn, len(batch["key"]))
            elif turn.player == "generator":
                made, known, losses[turn.player] = self._generator_turn(turn, made)
            else:
                last = batch_idx if place == self._last_turn else None
                made, known, losses[turn.player] = self._student_turn(turn, made, known, last)
        self._log_round(losses, len(batch["key"]))
        return losses["student"][0]

    def _generator_turn(self, turn: Turn, made: Batch) -> tuple[Batch, dict[str, Signals], Losses]:
        """Steps the generator; returns the last images, what fixed sources say of them, and its losses."""
        optimizer = cast(Any, self.optimizers())[1]
        self.student.train(turn.student == "train")
        with optimizer.toggle_model():  # no gradients of the student's weights
            for _ in range(turn.steps):
                made = self._made(made["latent"] if turn.images == "again" else self._draw(len(made["key"])), made)
                signals = self._signals("generator", made)
                loss, parts = cast(Objective, self.generator_objective)(signals)
                self._descend(optimizer.optimizer, loss, self.turns.clip)
        self.student.train()
        return _detached(made), self._kept(signals), (loss.detach(), parts)

    def _pool_turn(self, turn: Turn, count: int) -> Losses:
        """Makes the rounds of a training step; returns the last one's losses."""
        synthesis, objective = cast(Synthesis, self.turns.synthesis), cast(Objective, self.generator_objective)
        rounds = Rounds(synthesis, cast(Generator, self.generator), objective, self.pool)
        numbers, total = synthesis.numbers(self.global_step), cast(int, self.trainer.max_epochs) * self.turns.rounds

        def cost(batch: Batch) -> Losses:
            found: Losses = objective(self._signals("generator", batch))
            return found

        def descend(loss: Tensor) -> None:
            if self._beside is not None:
                self._beside.zero_grad()
            self.manual_backward(loss)
            if self._beside is not None:
                self._beside.step()

        def settle() -> None:
            if self._shared is not None:
                self._shared.step()

        self.student.train(turn.student == "train")
        with _held(self.student):
            losses = rounds.play(numbers, total + synthesis.ahead, turn.steps, count, cost, descend, settle)
        self.student.train()
        return losses

    def _student_turn(
        self, turn: Turn, made: Batch, known: dict[str, Signals], last: int | None
    ) -> tuple[Batch, dict[str, Signals], Losses]:
        """Steps the student; ``last`` is the number of the batch in its last turn of the round, which counts it."""
        optimizer = cast(Any, self.optimizers(use_pl_optimizer=True))
        optimizer = optimizer[0] if isinstance(optimizer, list) else optimizer
        feed = self.pool.batches(len(made["key"]), turn.steps)  # drawn as they are asked for
        for step in range(turn.steps):
            if turn.images == "pool":
                seen = cast(Synthesis, self.turns.synthesis).seen(next(feed))
                made, known = {"key": made["key"], "input": seen}, {}
            elif turn.images == "new" or (turn.images == "again" and not step):
                latent = self._draw(len(made["key"])) if turn.images == "new" else made["latent"]
                with torch.no_grad():
                    made, known = self._made(latent, made), {}
            signals = self._signals("student", made, known)
            known = self._kept(signals)
            loss, parts = self.objective(signals)
            counts = last is not None and step + 1 == turn.steps
            if counts and self.watch is not None:
                self.watch(parts, cast(int, last))
            self._descend(optimizer if counts else optimizer.optimizer, loss, self.turns.student_clip)
        return made, known, (loss.detach(), parts)

    def _draw(self, count: int) -> Tensor:
        latent: Tensor = cast(Any, self.generator).draw(count, self.network_device())
        return latent

    def _made(self, latent: Tensor, batch: Mapping[str, Tensor] | None = None) -> Batch:
        """Returns the batch with the images of ``latent``."""
        return {**(batch or {}), "latent": latent, "input": self.generator(latent)}

    def _tried(self, count: int) -> Batch:
        """Returns what the generator's terms read of as many images."""
        if (synthesis := self.turns.synthesis) is None:
            return self._made(self._draw(count))
        generator = cast(Generator, self.generator)
        return synthesis.batch(generator, *synthesis.draw(generator, count, self.network_device()))[1]

    def _signals(self, player: str, made: Batch, known: Mapping[str, Signals] | None = None) -> dict[str, Signals]:
        """Returns the signals that a player's objective reads; those that are known are not computed again."""
        known = known or {}
        read = [(name, source) for name, source in self.sources().items() if name in self._reads[player]]
        return {"batch": made, **{name: known[name] if name in known else source(made) for name, source in read}}

    def _kept(self, signals: Mapping[str, Signals]) -> dict[str, Signals]:
        """Returns, detached, what the same images would give again."""
        return {name: _detached(own) for name, own in signals.items() if name in self._fixed}

    def _descend(self, optimizer: Any, loss: Tensor, clip: float | None) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        if clip is not None:
            nn.utils.clip_grad_norm_([one for group in optimizer.param_groups for one in group["params"]], clip)
        optimizer.step()

    def signals(self, batch: Batch) -> dict[str, Signals]:
        """Returns the signals of the student's objective, of as many images as ``batch`` has keys."""
        with torch.no_grad():
            made = self._made(self._draw(len(batch["key"])), {"key": batch["key"]})
        return self._signals("student", made)

    def _log_round(self, losses: Mapping[str, Losses], count: int) -> None:
        if self.global_step % self.trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        for player, (loss, parts) in losses.items():
            prefix = "train" if player == "student" else f"train/{player}"
            named = {f"{prefix}/loss": loss, **{f"{prefix}/{name}": part.detach() for name, part in parts.items()}}
            self.log_dict(named, prog_bar=True, batch_size=count)
            for optimizer in self.trainer.optimizers[0 if player == "student" else 1 :][:1]:
                self.log(f"{prefix}/learning_rate", optimizer.param_groups[0]["lr"])

    # -- between rounds -----------------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Passes the epoch to terms and losses of both players."""
        super().on_train_epoch_start()
        if self.generator_objective is not None and self.turns.synthesis is None:  # of a pool terms count rounds
            self.generator_objective.on_epoch_start(self.current_epoch, cast(int, self.trainer.max_epochs))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Updates sources, and schedules by step."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        self._advance("step")

    def on_train_epoch_end(self) -> None:
        """Updates schedules by epoch."""
        self._advance("epoch")

    def _advance(self, interval: str) -> None:
        for schedule, own in self._schedules:
            if own == interval:
                schedule.step()

    @torch.no_grad()
    def examples(self, count: int) -> Tensor:
        """Returns images [count, C, H, W] as a teacher sees them: of the same random numbers, or the pool's newest."""
        if self.turns.synthesis is not None:
            return self.turns.synthesis.normalised(self.pool.newest(count))
        training = self.generator.training
        with seeded(self.seed, "generated"):
            images: Tensor = self.generator.eval()(self._draw(count))
        self.generator.train(training)
        return images


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors.items()}


@contextmanager
def _held(network: nn.Module) -> Iterator[None]:
    """Context manager in which the weights of a network have no gradient."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
