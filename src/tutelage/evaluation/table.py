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
from tutelage.tasks.figure_kinds import FigureKind, TaskFigures

MISSING = "–"
_WIDEST = 100
_MOST_FIGURES = 6  # that fit beside cost and time


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
    kinds = _figures(TaskFigures.of(metrics))
    for head, justify in (*_COST, *((_head(name, kind), "right") for name, kind in kinds.items()), ("Secs", "right")):
        table.add_column(head, justify=justify, no_wrap=True)
    for name, entry in metrics.get("chain", {}).items():
        table.add_row(name.capitalize(), *_cells(entry, None, kinds))
    for role, name in _names(metrics).items():
        table.add_row(name, *_cells(metrics[role], metrics.get("teacher"), kinds))
    for name, entry in metrics.get("peers", {}).items():
        table.add_row(name.capitalize(), *_cells(entry, None, kinds))
    return table


def _figures(figures: TaskFigures) -> dict[str, FigureKind]:
    """Returns the figures that the table shows: the headline first, as many as fit."""
    kinds = {figures.headline: figures.main, **figures.kinds}
    return dict([*kinds.items()][:_MOST_FIGURES])


def _head(name: str, kind: FigureKind) -> str:
    """Returns a column's head, in two lines."""
    title = _SHORT_HEADS.get(name, kind.title[:1].upper() + kind.title[1:])
    return f"{title}\n%" if kind.percent else title


def gain_sentence(metrics: Mapping[str, Any]) -> str:
    """Returns the gain of distillation over the student alone as a sentence, with its limits for one pair of runs."""
    _check(metrics)
    if "control" not in metrics:
        return "No student was trained alone beside this one: the run can't say what distillation gains."
    figures = TaskFigures.of(metrics)
    kind = figures.main
    last, best = (_gain(metrics, weights) for weights in ("last", "best"))
    lower = "; lower is better" if kind.mode == "min" else ""
    return (
        f"distilled − alone: {last} {kind.of_test} (last weights{lower}), {best} (best on validation). "
        "One pair of runs with one seed: not evidence by itself; sweep seeds to learn more."
    )


def short_line(metrics: Mapping[str, Any]) -> str:
    """Headline on test of the last weights and the gain, for a job of a multirun, whose table comes at the end."""
    _check(metrics)
    kind = TaskFigures.of(metrics).main
    names = {"teacher": "teacher", "control": "alone", "student": "distilled"}
    unit = " %" if kind.percent else ""
    sentences = [f"{name} {_headline(metrics, role)}{unit}" for role, name in names.items() if role in metrics]
    gain = f": {_gain(metrics)} {kind.unit or kind.title}" if "control" in metrics else ""
    return ", ".join(sentences) + gain


def multirun_table(found: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Returns a table with a row for each job of a multirun, followed by a legend."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("Job", overflow="fold")
    for head in ("Teacher", "Alone", "Distilled", "Gain"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, metrics in found.items():
        headlines = [_headline(metrics, role) for role in ("teacher", "control", "student")]
        table.add_row(Text(name), *headlines, _gain(metrics))
    what = {_what(TaskFigures.of(metrics).main) for metrics in found.values()}
    legend = (
        f"Test {' or '.join(sorted(what))}, last weights; gain: distilled − alone"
        f"{', in points' if any('%' in one for one in what) else ''}. Each row is one pair of runs; `tutelage report` "
        "says, over seeds, whether a gain is more than luck."
    )
    return Group(table, "", Constrain(Text(legend, style="dim"), _WIDEST))


def _what(kind: FigureKind) -> str:
    unit, lower = (" in %" if kind.percent else ""), (" (lower is better)" if kind.mode == "min" else "")
    return f"{kind.title}{unit}{lower}"


def _headline(metrics: Mapping[str, Any], role: str) -> str:
    if role not in metrics:
        return MISSING
    figures = TaskFigures.of(metrics)
    value = metrics[role]["last"]["test"].get(figures.headline)
    return MISSING if value is None else figures.main.text(value)


def _gain(metrics: Mapping[str, Any], weights: str = "last") -> str:
    figures = TaskFigures.of(metrics)
    value = metrics["gain"][weights].get(figures.headline) if "control" in metrics else None
    return MISSING if value is None else figures.main.difference(value)


def _check(metrics: Mapping[str, Any]) -> None:
    if metrics.get("schema") != 1:
        raise TutelageError(f"metrics document: expected schema 1, found {metrics.get('schema')!r}")
    if "student" not in metrics:
        raise TutelageError(f"metrics document: expected a student, found {sorted(metrics)}")


def _names(metrics: Mapping[str, Any]) -> dict[str, str]:
    names = {"teacher": "Teacher", "control": "Student alone", "student": "Distilled student"}
    if "teacher" not in metrics:
        names["student"] = "Student with peers" if "peers" in metrics else "Student"
    if metrics.get("chain", {}).keys() - {"generalist"}:
        names["teacher"] = "Last teacher"
    return {role: name for role, name in names.items() if role in metrics}


_COST: list[tuple[str, JustifyMethod]] = [("Params", "right"), ("Mult-\nadds", "right"), ("Weights\n(epoch)", "left")]
_SHORT_HEADS = {
    "accuracy": "Acc.", "agreement": "Agree", "label_accuracy": "Label", "mse_teacher": "MSE to\nteacher",
    "pearson_teacher": "r with\nteacher", "span_f1": "Span", "f1_micro": "F1\nmicro", "f1_macro": "F1\nmacro",
}  # fmt: skip


def _cells(entry: Mapping[str, Any], teacher: Mapping[str, Any] | None, kinds: Mapping[str, FigureKind]) -> list[str]:
    """Returns a row of the table: cost, figures and seconds, each cell a line for each of the weights."""
    kinds_of = [weights for weights in ("last", "best", "average") if weights in entry]

    def cost(what: str) -> str:
        known = teacher and teacher is not entry and entry[what] and teacher[what]
        smaller = _times(teacher[what] / entry[what]) if known else ""  # type: ignore[index]
        return f"{_short(entry[what])}\n{smaller}"

    def test(figure: str, show: Callable[[float], str]) -> str:
        values = (entry[weights]["test"].get(figure) for weights in kinds_of)
        return "\n".join(MISSING if value is None else show(value) for value in values)

    return [
        cost("parameters"),
        cost("multiply_adds"),
        "\n".join(f"{weights} {_epoch(entry[weights]['epoch'])}" for weights in kinds_of),
        *(test(name, kind.text) for name, kind in kinds.items()),
        f"{_seconds(entry['seconds'])}\n{'reused' if entry['reused'] else ''}",
    ]


def _legend(metrics: Mapping[str, Any]) -> str:
    count = metrics["student"]["last"]["test"]["count"]
    kinds = "the last weights and with the best on validation"
    if "average" in metrics["student"]:
        kinds = "the last weights, the best on validation and the average of the best"
    sentences = [f"{count:,} test examples, with {kinds}."]
    if "teacher" in metrics:
        fidelity = " Agree, KL: with the teacher." if "agreement" in TaskFigures.of(metrics).kinds else ""
        sentences.append("×: times smaller than the teacher." + fidelity)
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


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"
