"""Section "figures" of tasks other than classification: every figure of the three networks, by split."""

from collections.abc import Iterable

from tutelage.report.cells import Sweep
from tutelage.report.charts import NAMES
from tutelage.report.differences import differences
from tutelage.report.document import Section, Table, Text, spread_of, text, titled, value_of
from tutelage.report.gains import CellStatistics, mean
from tutelage.report.sections.gradients import gradients
from tutelage.tasks.figure_kinds import FigureKind

SPLITS = ("train", "val", "test")


def all_figures(
    sweep: Sweep, best: CellStatistics, weights: str, trusted: Iterable[str] = (), images: bool = True
) -> Section:
    """Returns the section: means and deviations over the chosen cell's seeds, examples, and the terms' gradients.

    Args:
        sweep: of the report.
        best: the chosen cell.
        weights: of control and student: ``last``, ``best`` or ``average``.
        trusted: packages whose data sets may be built.
        images: whether to show test examples on which teacher and student differ.
    """
    about = f"Of the chosen cell, {best.cell.name}, over its seeds. Train: at most 10,000 examples, as they are."
    shown = differences(best.cell, sweep.figures.task, weights, trusted) if images else []
    table = _table(best, weights)
    return Section("figures", "All figures", [Text(about), table, *shown, *gradients(sweep, best.cell)])


def _table(best: CellStatistics, weights: str) -> Table:
    """Returns one row for each figure and split; a mixed table of values is written as text."""
    rows = []
    for name, kind in best.figures.kinds.items():
        for split in SPLITS:
            found = {role: mean(best.cell, role, weights, split, name) for role in NAMES}
            if not any(found.values()):
                continue
            values = [one and value_of(kind)(one.mean) + _spread(kind, one.sd) for one in found.values()]
            alone, taught = found["control"], found["student"]
            gain = kind.difference(taught.mean - alone.mean) if alone and taught else None
            row = [titled(kind), split, *values, gain, "higher" if kind.mode == "max" else "lower"]
            rows.append(row)
    names = [*NAMES.values(), "distilled − alone", "better"]
    columns = {"figure": text, "split": text, **dict.fromkeys(names, text)}
    return Table("figures", "Every figure by split: mean ± sd over seeds", columns, rows)


def _spread(kind: FigureKind, sd: float | None) -> str:
    return "" if sd is None else f" ± {spread_of(kind)(sd)}"
