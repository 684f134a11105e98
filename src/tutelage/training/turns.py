"""A method of generator and student as an object: who steps how often, on which images, and what each minimises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tutelage.errors import TutelageError
from tutelage.models.generators import Generator
from tutelage.objective import Objective, Term

PLAYERS = ("generator", "student")
IMAGES = ("new", "again", "last")


@dataclass(frozen=True)
class Turn:
    """Some steps of one player.

    Args:
        player: ``generator`` or ``student``.
        steps: how many optimizer steps it makes.
        images: what they are made on: ``new``, from new random numbers at every step; ``again``, from the numbers of
            the turn before by the generator as it is now, the same for all steps; ``last``, the very images of the step
            before, which a student alone can learn from.
        student: ``train`` or ``eval``: of the student while the generator steps; in ``train`` its BatchNorm statistics
            follow these images, too.

    Raises:
        TutelageError: an argument is none of these.
    """

    player: Literal["generator", "student"]
    steps: int = 1
    images: Literal["new", "again", "last"] = "new"
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
        optimizer: parameters → optimizer of the generator.
        scheduler: optimizer → learning-rate schedule of the generator, or None.
        interval: what one step of that schedule is: ``epoch`` or ``step``.
        clip: greatest norm of the generator's gradient; None: any.
        student_clip: of the student's.

    Raises:
        TutelageError: the student has no turn, the first turn has no images to use again, the generator's turns lack
            terms or an optimizer, or a number is out of range.
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

    def __post_init__(self) -> None:
        if not self.order or self.order[0].images != "new":
            raise TutelageError("turns.order: the first turn of a round needs images=new, as there are none before it")
        if "student" not in [turn.player for turn in self.order]:
            raise TutelageError("turns.order: the student has no turn, so it would learn nothing")
        if self.generates and (not self.terms or self.optimizer is None):
            raise TutelageError("turns: the generator has a turn, which needs turns.terms and turns.optimizer")
        if self.interval not in ("epoch", "step"):
            raise TutelageError(f"turns.interval must be epoch or step; found {self.interval!r}")
        for name in ("clip", "student_clip"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise TutelageError(f"turns.{name} must be above 0, or null; found {value!r}")

    @property
    def generates(self) -> bool:
        """Checks whether the generator learns."""
        return any(turn.player == "generator" for turn in self.order)

    @property
    def passes(self) -> dict[str, int]:
        """Returns how many forward passes the networks of a round cost for an image: generator, student, teacher.

        A step is three of the network that learns; a gradient that only passes through a network is one more.
        """
        found = {"generator": 0, "student": 0, "teacher": 0}
        for turn in self.order:
            made = {"new": turn.steps, "again": 1, "last": 0}[turn.images]  # batches that are made and asked about
            if turn.player == "generator":
                own = {"generator": 3 * turn.steps, "student": 2 * turn.steps, "teacher": 2 * turn.steps}
            else:
                own = {"generator": made, "student": 3 * turn.steps, "teacher": made}
            found = {name: found[name] + own[name] for name in found}
        return found

    def objective(self) -> Objective | None:
        """Returns what the generator minimises; None if it does not learn."""
        return Objective(self.terms) if self.generates else None
