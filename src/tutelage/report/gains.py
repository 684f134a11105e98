"""Gains of each cell over the student alone, and the cell that validation chooses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from tutelage.report.cells import Cell, Sweep
from tutelage.report.runs import Run
from tutelage.report.statistics import Paired, holm, paired
from tutelage.tasks.figure_kinds import TaskFigures

ALPHA = 0.05


@dataclass(frozen=True)
class Mean:
    """Mean and sd of a metric over seeds; no sd for a single one."""

    mean: float
    sd: float | None
    count: int


@dataclass(frozen=True)
class CellStatistics:
    """Statistics of a cell.

    Attributes:
        cell: which.
        val: the headline on validation of the student (accuracy of classification), what is chosen by.
        val_gain: over the control, paired by seed.
        test_gain: the same on test.
        holm_t: its t-test's p, corrected over the cells.
        holm_wilcoxon: that of the signed-rank test.
        complete: whether it has as many seeds as any cell.
        unpaired: seeds without a control of the same seed.
    """

    cell: Cell
    val: Mean
    val_gain: Paired
    test_gain: Paired
    complete: bool
    unpaired: Sequence[int]
    holm_t: float | None = None
    holm_wilcoxon: float | None = None

    @property
    def figures(self) -> TaskFigures:
        """Returns the figures of the task."""
        return self.cell.figures

    @property
    def helps(self) -> bool:
        """Checks whether the mean gain on test is an improvement."""
        return self.test_gain.mean is not None and self.figures.main.sign * self.test_gain.mean > 0

    @property
    def significant(self) -> bool:
        """Checks whether the gain is significant at 5 %, corrected, by the t-test."""
        return self.holm_t is not None and self.holm_t < ALPHA


def figure(run: Run, role: str, weights: str, split: str, name: str) -> float | None:
    """Returns a metric of ``metrics.json`` (:meth:`Run.weights`); None if it is missing."""
    node: Any = run.metrics
    for part in (role, run.weights(role, weights), split, name):
        node = node.get(part) if isinstance(node, Mapping) else None
    return None if node is None else float(node)


def mean(cell: Cell, role: str, weights: str, split: str, name: str) -> Mean | None:
    """Returns the mean of a metric over the cell's runs; a network shared by several runs counts once for each."""
    found = [figure(run, role, weights, split, name) for run in cell.runs.values()]
    values = [value for value in found if value is not None]
    if not values:
        return None
    return Mean(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def is_paired(run: Run) -> bool:
    """Checks whether the run has a control of its own seed."""
    seed = (run.artifacts.get("control", {}).get("recipe") or {}).get("seed", run.seed)
    return bool(run.metrics.get("control")) and seed == run.seed


def gains(cell: Cell, weights: str, split: str) -> dict[int, float]:
    """Returns seed → headline of the student − headline of its control; where lower is better, a gain is negative."""
    found, headline = {}, cell.figures.headline
    for seed, run in cell.runs.items():
        pair = [figure(run, role, weights, split, headline) for role in ("student", "control")]
        if is_paired(run) and None not in pair:
            found[seed] = pair[0] - pair[1]  # type: ignore[operator]
    return found


def standings(sweep: Sweep, weights: str) -> list[CellStatistics]:
    """Returns the statistics of each cell, in the sweep's order."""
    most = max((len(cell.runs) for cell in sweep.cells), default=0)
    found = []
    for cell in sweep.cells:
        val = mean(cell, "student", weights, "val", cell.figures.headline)
        if val is None:
            continue
        paired_test = gains(cell, weights, "test")
        found.append(
            CellStatistics(
                cell, val, paired([*gains(cell, weights, "val").values()]), paired([*paired_test.values()]),
                len(cell.runs) == most, [seed for seed in cell.runs if seed not in paired_test],
            )
        )  # fmt: skip
    t = holm([one.test_gain.p_t for one in found])
    w = holm([one.test_gain.p_wilcoxon for one in found])
    return [replace(one, holm_t=a, holm_wilcoxon=b) for one, a, b in zip(found, t, w, strict=True)]


def choose(found: Sequence[CellStatistics]) -> CellStatistics | None:
    """Returns the complete cell with the best mean headline on validation; ties: the first. Test is not used."""
    complete = [one for one in found if one.complete]
    return max(complete, key=lambda one: one.figures.main.sign * one.val.mean, default=None)
