"""Writes the report of folders of runs."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tutelage.errors import TutelageError
from tutelage.report.answers import Answers
from tutelage.report.cells import Sweep, by_data, show, sort_runs
from tutelage.report.document import Report, Section, Table, Text, markdown, plural, text
from tutelage.report.gains import choose, standings
from tutelage.report.page import page
from tutelage.report.runs import Run
from tutelage.report.sections.all_figures import all_figures
from tutelage.report.sections.answer import answer
from tutelage.report.sections.behaviour import behaviour
from tutelage.report.sections.diagnosis import diagnosis
from tutelage.report.sections.exports import exports
from tutelage.report.sections.provenance import provenance
from tutelage.report.sections.training import training
from tutelage.runtime.files import write_atomically
from tutelage.tasks.figure_kinds import CLASSIFICATION

_GROUPS = ("model@teacher", "model@student", "data", "loss")


def write_report(
    runs: Sequence[Run], output: Path, weights: str, trusted: Iterable[str] = (), images: bool = True
) -> Path:
    """Writes ``index.html``, ``report.md`` and ``tables/``: a CSV file for every table, and no other ones.

    Args:
        runs: the runs to report.
        output: folder of the report.
        weights: which weights of control and student: ``last``, ``best`` or ``average``.
        trusted: the user's packages whose data sets the runs' configs may name (:mod:`tutelage.config.trust`).
        images: whether to show test images; only they need the data and PyTorch.

    Returns:
        Path of the page.

    Raises:
        TutelageError: there is nothing to report.
    """
    groups = by_data(runs)
    if len(groups) > 1:
        return _write_each([*groups.values()], output, weights, trusted, images)
    report = make_report(runs, weights, trusted, images)
    return _write(report, output)


def _write_each(
    groups: Sequence[Sequence[Run]], output: Path, weights: str, trusted: Iterable[str], images: bool
) -> Path:
    """Writes a report for each data set into its own folder, as their runs cannot be ranked together."""
    rows: list[list[str]] = []
    for number, group in enumerate(groups, 1):
        choice = re.sub(r"[^\w-]+", "_", str(group[0].choices.get("data", "data")))
        name = f"data{number}-{choice}"
        try:
            report = make_report(group, weights, trusted, images)
        except TutelageError as error:
            rows.append([name, plural(len(group), "run"), str(error)])
            continue
        _write(report, output / name)
        lead = next(block.text for block in report.sections[0].blocks if isinstance(block, Text))
        rows.append([f"{name}/index.html", plural(len(group), "run"), lead])
    columns = {"page": text, "runs": text, "answer": text}
    table = Table("data", "One report for each data set: their runs are never ranked together", columns, rows)
    title = f"Distillation reports: {plural(sum(map(len, groups)), 'run')} on {len(groups)} data sets"
    return _write(Report(title, "Open the page of a data set.", [Section("data", "Data sets", [table])]), output)


def _write(report: Report, output: Path) -> Path:
    write_atomically(output / "index.html", page(report).encode())
    write_atomically(output / "report.md", markdown(report).encode())
    for stale in (output / "tables").glob("*.csv"):
        stale.unlink()
    for table in report.tables():
        write_atomically(output / "tables" / f"{table.name}.csv", table.csv().encode())
    return output / "index.html"


def make_report(runs: Sequence[Run], weights: str, trusted: Iterable[str] = (), images: bool = True) -> Report:
    """Returns the report of runs.

    Raises:
        TutelageError: there is no run, or none with metrics.
    """
    sweep = sort_runs(runs)
    _check_weights(sweep, weights)
    found = standings(sweep, weights)
    best = choose(found)
    if best is None:
        raise TutelageError(_nothing(sweep))
    answers = Answers(weights)
    title = f"Distillation report: {plural(len(sweep.runs), 'run')}, {plural(len(sweep.cells), 'cell')}"
    sections = [answer(sweep, found, best, weights), training(sweep, best, weights), *exports(sweep)]
    if sweep.figures.task == CLASSIFICATION.task:
        sections += [behaviour(best.cell, answers, trusted, images), diagnosis(sweep, found, best, answers)]
    else:  # confusion, calibration and dark knowledge are of one class an example
        sections.append(all_figures(sweep, best, weights, trusted, images))
    return Report(title, subtitle(sweep), [*sections, provenance(sweep, answers.problems)])


def _check_weights(sweep: Sweep, weights: str) -> None:
    networks = [(run, run.metrics.get(role)) for run in sweep.runs for role in ("control", "student")]
    lacking = list(dict.fromkeys(run.folder for run, network in networks if network and weights not in network))
    if lacking:
        raise TutelageError(
            f"--weights {weights}: {len(lacking)} of {plural(len(sweep.runs), 'run')} have none of student or control, "
            f"which callbacks=average_best makes, such as {lacking[0]}"
        )


def subtitle(sweep: Sweep) -> str:
    """Returns the networks, the data, the seeds and what was varied, as text."""
    choices = sweep.runs[0].choices
    taught = any(cell.has_teacher for cell in sweep.cells)
    named = [group for group in _GROUPS if taught or group != "model@teacher"]
    same = [group for group in named if group in choices and group not in sweep.keys]
    parts = [f"{group.rpartition('@')[2]} {show(choices[group])}" for group in same]
    seeds = ", ".join(map(str, sorted({run.seed for run in sweep.runs if run.seed is not None})))
    counts = {len(run.metrics.get("peers") or ()) for run in sweep.runs} - {0}
    parts += [plural(count, "peer") for count in sorted(counts)]
    parts += [f"seeds {seeds}", f"varied: {', '.join(sweep.keys) or 'nothing but the seed'}"]
    return "; ".join(parts) + "."


def _nothing(sweep: Sweep) -> str:
    if not sweep.failed:
        return "no run of `tutelage distill` is among these"
    parts = "\n".join(f"  {run.folder}: {run.state}: {run.problem}" for run in sweep.failed[:10])
    return f"{plural(len(sweep.failed), 'run')}, none with figures:\n{parts}"
