"""The table at the end of a run, and a sentence on the gain of distillation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from tutelage.errors import TutelageError

MISSING = "–"
_WIDEST = 100


def comparison(metrics: Mapping[str, Any]) -> RenderableType:
    """Returns a table of teacher, student alone and distilled student, followed by :func:`gain_sentence`.

    A row has two lines: the last weights, and the best on validation. It fits 80 columns and grows to 100.

    Args:
        metrics: a run's ``metrics.json``; "teacher" and "control" may be missing.

    Raises:
        TutelageError: the document has another schema, or no student.
    """
    _check(metrics)
    return _Comparison(metrics)


@dataclass(frozen=True)
class _Comparison:
    metrics: Mapping[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, _WIDEST)
        yield _table(self.metrics, gap=2 if width == _WIDEST else 1)
        yield ""
        yield Constrain(Text(_legend(self.metrics), style="dim"), width)
        yield Constrain(Text(gain_sentence(self.metrics)), width)


def _table(metrics: Mapping[str, Any], gap: int) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0), leading=1)
    table.add_column(f"Seed {metrics['seed']}", min_width=len("Distilled"))  # in 80 columns a name takes two lines
    for head, justify in _COLUMNS:
        table.add_column(head, justify=justify, no_wrap=True)
    for name, entry in metrics.get("chain", {}).items():
        table.add_row(name.capitalize(), *_cells(entry, None))
    for role, name in _names(metrics).items():
        table.add_row(name, *_cells(metrics[role], metrics.get("teacher")))
    return table


def gain_sentence(metrics: Mapping[str, Any]) -> str:
    """Returns the gain of distillation over the student alone as a sentence, with its limits for one pair of runs."""
    _check(metrics)
    if "control" not in metrics:
        return "No student was trained alone beside this one: the run can't say what distillation gains."
    last, best = (_points(metrics["gain"][weights]["accuracy"]) for weights in ("last", "best"))
    return (
        f"distilled − alone: {last} points of test accuracy (last weights), {best} (best on validation). "
        "One pair of runs with one seed: not evidence by itself; sweep seeds to learn more."
    )


def short_line(metrics: Mapping[str, Any]) -> str:
    """Returns the test accuracy of the last weights and the gain in one line, for a job of a multirun."""
    _check(metrics)
    names = {"teacher": "teacher", "control": "alone", "student": "distilled"}
    sentences = [f"{name} {_accuracy(metrics, role)} %" for role, name in names.items() if role in metrics]
    return ", ".join(sentences) + (f": {_gain(metrics)} points" if "control" in metrics else "")


def multirun_table(found: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Returns a table with a row for each job of a multirun, followed by a legend."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("Job", overflow="fold")
    for head in ("Teacher", "Alone", "Distilled", "Gain"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, metrics in found.items():
        accuracies = [_accuracy(metrics, role) for role in ("teacher", "control", "student")]
        table.add_row(Text(name), *accuracies, _gain(metrics))
    legend = (
        "Test accuracy in %, last weights; gain: distilled − alone, in points. Each row is one pair of runs; "
        "`tutelage report` says, over seeds, whether a gain is more than luck."
    )
    return Group(table, "", Constrain(Text(legend, style="dim"), _WIDEST))


def _accuracy(metrics: Mapping[str, Any], role: str) -> str:
    return _percent(metrics[role]["last"]["test"]["accuracy"]) if role in metrics else MISSING


def _gain(metrics: Mapping[str, Any]) -> str:
    return _points(metrics["gain"]["last"]["accuracy"]) if "control" in metrics else MISSING


def _check(metrics: Mapping[str, Any]) -> None:
    if metrics.get("schema") != 1:
        raise TutelageError(f"metrics document: expected schema 1, found {metrics.get('schema')!r}")
    if "student" not in metrics:
        raise TutelageError(f"metrics document: expected a student, found {sorted(metrics)}")


def _names(metrics: Mapping[str, Any]) -> dict[str, str]:
    names = {"teacher": "Teacher", "control": "Student alone", "student": "Distilled student"}
    if "teacher" not in metrics:
        names["student"] = "Student"
    if metrics.get("chain", {}).keys() - {"generalist"}:
        names["teacher"] = "Last teacher"
    return {role: name for role, name in names.items() if role in metrics}


_COLUMNS: list[tuple[str, JustifyMethod]] = [
    ("Params", "right"),
    ("Mult-\nadds", "right"),
    ("Weights\n(epoch)", "left"),
    ("Acc.\n%", "right"),
    ("Errors", "right"),
    ("NLL", "right"),
    ("ECE", "right"),
    ("Agree\n%", "right"),
    ("KL", "right"),
    ("Secs", "right"),
]


def _cells(entry: Mapping[str, Any], teacher: Mapping[str, Any] | None) -> list[str]:
    """Returns a row of the table in the order of ``_COLUMNS``, each cell two lines."""

    def cost(what: str) -> str:
        known = teacher and teacher is not entry and entry[what] and teacher[what]
        smaller = _times(teacher[what] / entry[what]) if known else ""  # type: ignore[index]
        return f"{_short(entry[what])}\n{smaller}"

    def test(figure: str, show: Callable[[float], str]) -> str:
        values = (entry[weights]["test"].get(figure) for weights in ("last", "best"))
        return "\n".join(MISSING if value is None else show(value) for value in values)

    return [
        cost("parameters"),
        cost("multiply_adds"),
        "\n".join(f"{weights} {_epoch(entry[weights]['epoch'])}" for weights in ("last", "best")),
        test("accuracy", _percent),
        test("errors", str),
        test("nll", _decimal),
        test("ece", _decimal),
        test("agreement", _percent),
        test("kl_teacher", _decimal),
        f"{_seconds(entry['seconds'])}\n{'reused' if entry['reused'] else ''}",
    ]


def _legend(metrics: Mapping[str, Any]) -> str:
    count = metrics["student"]["last"]["test"]["count"]
    sentences = [f"{count:,} test examples, with the last weights and with the best on validation."]
    if "teacher" in metrics:
        sentences.append("×: times smaller than the teacher. Agree, KL: with the teacher.")
    shown = {**metrics.get("chain", {}), **{name: metrics[role] for role, name in _names(metrics).items()}}
    for name, entry in shown.items():
        if entry["reused"]:
            sentences.append(f"{name.capitalize()}: reused, {_origin(entry)}; trained in these seconds.")
    return " ".join(sentences)


def _origin(entry: Mapping[str, Any]) -> str:
    """Returns the date an artifact was made, and the beginning of its digest."""
    return f"made {str(entry.get('made') or MISSING)[:16]}, digest {str(entry.get('digest') or MISSING)[:8]}"


def _short(count: int | None) -> str:
    """Formats a number with four significant digits: 25450 → 25.45k."""
    if count is None:
        return MISSING
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.4g}{unit}"
    return str(count)


def _epoch(epoch: int | None) -> str:
    return MISSING if epoch is None else str(epoch)  # a file, or several networks


def _times(ratio: float) -> str:
    return f"{ratio:.3g}×" if ratio < 1000 else f"{ratio:.0f}×"


def _percent(fraction: float) -> str:
    """Formats a fraction in percent with at most five characters; only exactly 1 is 100."""
    return "100" if fraction == 1 else f"{min(100 * fraction, 99.99):.2f}"


def _decimal(value: float) -> str:
    return f"{value:.4f}" if value < 10 else f"{value:.4g}" if value < 10_000 else f"{value:.0e}"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _points(difference: float) -> str:
    """Formats a signed number of percentage points, with a minus sign and no negative zero."""
    return f"{round(100 * difference, 2) + 0.0:+.2f}".replace("-", "−")
