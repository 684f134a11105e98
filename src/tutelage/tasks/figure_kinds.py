"""Describes the figures of a task for tables and reports, which read them from ``metrics.json``; without PyTorch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tutelage.errors import TutelageError


@dataclass(frozen=True)
class FigureKind:
    """Writes values of one figure, and says which of two is better.

    Attributes:
        title: what tables call it.
        mode: ``max`` if higher is better, ``min`` if lower is; of fidelity, closer to the teacher.
        percent: whether it is a fraction that is written in per cent; its differences are percentage points.
    """

    title: str
    mode: str = "max"
    percent: bool = False

    def text(self, value: float) -> str:
        """Returns a value as text: 98.76 of a fraction, else four decimals or four digits."""
        if self.percent:
            return "100" if value == 1 else f"{min(100 * value, 99.99):.2f}"
        if isinstance(value, int):
            return str(value)
        shown = f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0e}"
        return shown.replace("-", "−")

    def difference(self, value: float) -> str:
        """Returns a difference with its sign, in percentage points or as it is; there is no negative zero."""
        scaled = round(100 * value, 2) if self.percent else round(value, 4)
        return f"{scaled + 0.0:+.{2 if self.percent else 4}f}".replace("-", "−")

    @property
    def of_test(self) -> str:
        """Returns what differences are of: ``points of test accuracy``, ``of test RMSE``."""
        return f"{self.unit} of test {self.title}".strip()

    @property
    def unit(self) -> str:
        """Returns the unit of differences: ``points`` or nothing."""
        return "points" if self.percent else ""

    @property
    def sign(self) -> int:
        """Returns 1 if higher is better, else −1."""
        return 1 if self.mode == "max" else -1


@dataclass(frozen=True)
class TaskFigures:
    """The figures of a task, as ``metrics.json`` records them.

    Attributes:
        task: its name.
        headline: the figure that runs are compared by.
        kinds: name → how it is written, in the order of tables.
    """

    task: str
    headline: str
    kinds: Mapping[str, FigureKind]

    @property
    def main(self) -> FigureKind:
        """Returns the kind of the headline."""
        return self.kinds[self.headline]

    def document(self) -> dict[str, Any]:
        """Returns the entry ``task`` of ``metrics.json``."""
        kinds = {name: asdict(kind) for name, kind in self.kinds.items()}
        return {"name": self.task, "headline": self.headline, "figures": kinds}

    @staticmethod
    def of(metrics: Mapping[str, Any]) -> "TaskFigures":
        """Returns the figures that a document of ``metrics.json`` declares; classification's if it declares none.

        Raises:
            TutelageError: the declaration is damaged.
        """
        if (found := metrics.get("task")) is None:
            return CLASSIFICATION
        try:
            kinds = {str(name): FigureKind(**kind) for name, kind in found["figures"].items()}
            made = TaskFigures(str(found["name"]), found["headline"], kinds)
            made.main  # noqa: B018
        except (AttributeError, KeyError, TypeError) as error:
            raise TutelageError(f"metrics document: its entry 'task' is damaged: {error}") from error
        return made


CLASSIFICATION = TaskFigures(
    "classification",
    "accuracy",
    {
        "accuracy": FigureKind("accuracy", "max", True),
        "errors": FigureKind("errors", "min"),
        "nll": FigureKind("NLL", "min"),
        "ece": FigureKind("ECE", "min"),
        "agreement": FigureKind("agreement", "max", True),
        "kl_teacher": FigureKind("KL", "min"),
    },
)
