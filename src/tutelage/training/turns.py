"""A method of generator and student as an object: who steps how often, on which images, and what each minimises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tutelage.errors import TutelageError
from tutelage.models.generators import Generator
from tutelage.objective import Objective, Term
from tutelage.training.synthesis import Synthesis

PLAYERS = ("generator", "student")
IMAGES = ("new", "again", "last", "pool")


@dataclass(frozen=True)
class Turn:
    """Some steps of one player.

    Args:
        player: ``generator`` or ``student``.
        steps: how many optimizer steps it makes.
        images: what they are made on: ``new``, from new random numbers at every step; ``again``, from the numbers of
            the turn before by the generator as it is now, the same for all steps; ``last``, the very images of the step
            before, which a student alone can learn from; ``pool``, by ``turns.synthesis``: the generator's rounds add
            images, and the student learns from all that were added.
        student: ``train`` or ``eval``: of the student while the generator steps; in ``train`` its BatchNorm statistics
            follow these images, too.

    Raises:
        TutelageError: an argument is none of these.
    """

    player: Literal["generator", "student"]
    steps: int = 1
    images: Literal["new", "again", "last", "pool"] = "new"
    student: Literal["train", "eval"] = "train"

    def __post_init__(self) -> None:
        for name, known in (("player", PLAYERS), ("images", IMAGES), ("student", ("train", "eval"))):
            if (found := getattr(self, name)) not in known:
                raise TutelageError(f"turns.order: {name} must be one of {', '.join(known)}; found {found!r}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise TutelageError(f"turns.order: steps must be a whole number of at least 1; found {self.steps!r}")
        if self.player == "generator" and self.images == "last":
            raise TutelageError("turns.order: a generator steps on images that it makes: images=new or again, not last")


@dataclass(frozen=True)
class Turns:
    """Everything that a method of generator and student is made of, but for the student's own objective and optimizer.

    Args:
        generator: makes images of random numbers.
        order: the turns of a round. A round is one step of the training: ``max_steps``, schedules by step and
            ``log_every_n_steps`` count rounds.
        rounds: number of rounds in an epoch.
        terms: name → term of what the generator minimises; they read ``teacher.…``, ``student.…``, ``batch.input`` (the
            images) and ``batch.latent`` (the random numbers).
        optimizer: parameters → optimizer of the generator and of what its terms learn; of these alone with a pool.
        scheduler: optimizer → learning-rate schedule of the generator, or None.
        interval: what one step of that schedule is: ``epoch`` or ``step``.
        clip: greatest norm of the generator's gradient; None: any.
        student_clip: of the student's.
        synthesis: how turns with ``images=pool`` make images; None: there are none.

    Raises:
        TutelageError: the student has no turn, the first turn has no images to use again, the generator's turns lack
            terms or an optimizer, some turns are of a pool and others not, or a number is out of range.
    """

    generator: Generator
    order: Sequence[Turn]
    rounds: int
    terms: Mapping[str, Term] = field(default_factory=dict)
    optimizer: Any = None
    scheduler: Any = None
    interval: str = "epoch"
    clip: float | None = None
    student_clip: float | None = None
    synthesis: Synthesis | None = None

    def __post_init__(self) -> None:
        self._check_order()
        if self.generates and (not self.terms or (self.optimizer is None and self.synthesis is None)):
            raise TutelageError("turns: the generator has a turn, which needs turns.terms and turns.optimizer")
        if self.optimizer is None and any(True for term in self.terms.values() for _ in term.parameters()):
            raise TutelageError("turns.optimizer: a term of the generator has parameters that learn, which needs one")
        if self.interval not in ("epoch", "step"):
            raise TutelageError(f"turns.interval must be epoch or step; found {self.interval!r}")
        if self.synthesis is not None and self.clip is not None:
            raise TutelageError("turns.clip: gradients in rounds of a pool are not cut; use clip=null")
        for name in ("clip", "student_clip"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise TutelageError(f"turns.{name} must be above 0, or null; found {value!r}")

    def _check_order(self) -> None:
        pooled = {turn.images == "pool" for turn in self.order}
        if self.order and pooled != {self.synthesis is not None}:
            raise TutelageError(
                "turns: with turns.synthesis all turns have images=pool, without it none; found "
                f"{[turn.images for turn in self.order]} and {'a' if self.synthesis else 'no'} synthesis"
            )
        if self.synthesis is not None and self.order and self.order[0].player != "generator":
            raise TutelageError(
                "turns.order: the first turn of a round is a generator's, as the pool is empty at first"
            )
        if not self.order or (self.synthesis is None and self.order[0].images != "new"):
            raise TutelageError("turns.order: the first turn of a round needs images=new, as there are none before it")
        if "student" not in [turn.player for turn in self.order]:
            raise TutelageError("turns.order: the student has no turn, so it would learn nothing")

    @property
    def generates(self) -> bool:
        """Checks whether the generator learns."""
        return any(turn.player == "generator" for turn in self.order)

    def passes(self, batch: int) -> dict[str, float]:
        """Returns how many forward passes the networks of a round cost for an image of the student's batch.

        A step is three of the network that learns; a gradient that only passes through a network is one more. Rounds
        before the student's first step are not counted.

        Args:
            batch: the student's images in a step.

        Returns:
            The number by ``generator``, ``student``, ``teacher``.
        """
        found = {"generator": 0.0, "student": 0.0, "teacher": 0.0}
        views = 1 if self.synthesis is None else len(self.synthesis.views)
        share = 1.0 if self.synthesis is None else (self.synthesis.images or batch) / batch
        for turn in self.order:
            made = {"new": turn.steps, "again": 1, "last": 0, "pool": 0}[turn.images]  # batches that are made
            asked = turn.steps if turn.images == "pool" else made
            if turn.player == "generator":
                steps = share * turn.steps
                own = {"generator": 3 * steps, "student": 2 * steps, "teacher": 2 * views * steps}
            else:
                own = {"generator": made, "student": 3 * turn.steps, "teacher": asked}
            found = {name: found[name] + own[name] for name in found}
        return found

    def objective(self) -> Objective | None:
        """Returns what the generator minimises; None if it does not learn."""
        return Objective(self.terms) if self.generates else None
