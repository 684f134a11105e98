"""Section "training": curves of the training, and the networks' cost."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from PIL import Image

from tutelage.checkpoints.header import is_of_other_weights
from tutelage.errors import TutelageError
from tutelage.report.cells import Cell, Sweep
from tutelage.report.charts import Point, against_cost, epoch_chart
from tutelage.report.curves import Band, Curve, band, read_curves
from tutelage.report.document import Block, Figure, Section, Table, Text, number, spread_of, text, titled, value_of
from tutelage.report.gains import CellStatistics, mean
from tutelage.report.runs import ROLES, Run
from tutelage.report.svg import data_uri
from tutelage.tasks.figure_kinds import FigureKind, TaskFigures

_COSTS = {"parameters": "parameters", "multiply-adds": "multiply-adds an image"}
MOST_FAINT = 30  # curves of other cells


def training(sweep: Sweep, best: CellStatistics, weights: str) -> Section:
    """Returns the section: curves of teacher, control and the chosen cell's students; accuracy against cost."""
    blocks = [*_curves(sweep, best.cell), *_generated(best.cell), *_cost(sweep, best.cell, weights)]
    return Section("training", "Training and cost", blocks)


def _curves(sweep: Sweep, cell: Cell) -> Iterable[Block]:
    damaged: list[str] = []
    own = {role: _of_role(cell.runs.values(), role, damaged) for role in ROLES}
    others = [one for one in sweep.cells if one is not cell][:MOST_FAINT]
    faint = [_of_role(one.runs.values(), "student", damaged) for one in others]
    if damaged:
        rows = [[why] for why in damaged]
        yield Table("damaged-curves", "Damaged: the curves of these trainings are not shown", {"why": text}, rows)
    elif not any(curves for role in ROLES for curves in own[role]):
        yield Text("No curves: these runs have no TensorBoard files (logger=none).", "note")
    for tag, kind in _shown(sweep.figures).items():
        title, y_name, y_text = _axis(tag, kind)
        bands = {role: found for role in ROLES if (found := _band(own[role], tag))}
        if not bands:
            continue
        thin = [found for curves in faint if (found := _band(curves, tag))]
        caption = (
            f"{cell.name}: mean of its seeds, the band is one standard deviation; the scale is that of later epochs."
        )
        caption += " Thin: the means of other cells." if thin else ""
        name = tag.replace("/", "-")
        yield Figure(name, title, epoch_chart(name, title, bands, thin, y_name, y_text), caption)


def _generated(cell: Cell) -> Iterable[Block]:
    """Yields the images that were made for the student, of the first seed that has some."""
    for seed, run in cell.runs.items():
        if (path := run.folder / "checkpoints" / "generated.png").is_file():
            try:
                with Image.open(path) as picture:
                    uri = data_uri(picture.convert("RGB" if picture.mode not in ("L", "RGB") else picture.mode))
            except OSError as error:
                yield Text(f"{path} cannot be shown: {error}", "note")
                continue
            title = f"Images that were made for the student, at the end (seed {seed})"
            content = f'<img class="generated" src="{uri}" alt="{title}" title="{title}">'
            yield Figure("generated", title, content, "The student learned from such images in place of real ones.")
            return


def _shown(figures: TaskFigures) -> dict[str, FigureKind]:
    """Returns the curves that are drawn: the headline, NLL, and how close the student is to its teacher."""
    names = dict.fromkeys((figures.headline, "nll", "agreement", "mse_teacher"))
    return {f"val/{name}": figures.kinds[name] for name in names if name in figures.kinds}


def _axis(tag: str, kind: FigureKind) -> tuple[str, str, Callable[[float], str]]:
    """Returns title, name of the axis and text of its values."""
    title = "Agreement with the teacher, on validation" if tag == "val/agreement" else f"Validation {kind.title}"
    if kind.percent:
        return title, titled(kind), lambda value: f"{100 * value:.4g}"
    return title, "nats" if tag == "val/nll" else kind.title, lambda value: f"{value:.3g}"


def _of_role(runs: Iterable[Run], role: str, damaged: list[str]) -> list[dict[str, Curve]]:
    """Returns the curves of a role's networks, each once; appends to ``damaged`` why some are left out."""
    places: dict[str, Path] = {}
    for run in runs:
        recorded = run.artifacts.get(role, {}).get("folder") or run.folder
        places.setdefault(str(recorded), run.folder / "tensorboard" / role)
    found = []
    for place in places.values():
        try:
            found.append(read_curves(place))
        except TutelageError as error:
            damaged.append(str(error))
    return found


def _band(found: Sequence[dict[str, Curve]], tag: str) -> Band | None:
    return band([curves.get(tag, {}) for curves in found])


def _cost(sweep: Sweep, cell: Cell, weights: str) -> Iterable[Block]:
    rows, figures = [], sweep.figures
    for role in ("teacher", "control"):
        rows += _of_networks(sweep, role, weights)
    rows += _of_chain(sweep, weights) + _of_peers(cell, weights)
    for one in sweep.cells:
        if row := _row("student" if one is cell else "other", one.name, one, "student", weights):
            rows.append(row)
    for run in sweep.others:
        own = run.metrics.get("figures") or {}
        if run.metrics.get("split") == "test" and figures.headline in own:
            stage = (run.metrics.get("about") or {}).get("stage", "network")
            changed = is_of_other_weights(run.metrics.get("weights"), Path(run.metrics.get("checkpoint", "")))
            label = f"evaluated: {stage}, {run.folder.name}{', weights written again since' if changed else ''}"
            cost = [run.metrics.get(key) for key in ("parameters", "multiply_adds")]
            rows.append(["other", label, *cost, own[figures.headline], None, None, 1])
    for place, (name, axis) in enumerate(_COSTS.items()):
        points = [
            Point(row[0], row[1], row[2 + place], row[4], row[5] or 0.0) for row in rows if row[2 + place] and row[4]
        ]
        if points:
            title = f"Test {figures.main.title} against {name}"
            caption = "Bars: one standard deviation over seeds. Hollow diamonds: other cells' students, other networks."
            yield Figure(
                f"cost-{name}", title, against_cost(f"cost-{name}", title, axis, figures.main, points), caption
            )
    kind = figures.main
    columns = {"network": text, "parameters": text, "multiply-adds": text, f"test {titled(kind)}": value_of(kind),
               "sd": spread_of(kind), "training, s": number, "runs": text}  # fmt: skip
    caption = f"Cost and test {kind.title} of each network"
    yield Table("cost", caption, columns, [row[1:] for row in rows], shown=20, folded=len(rows) > 12)


def _of_networks(sweep: Sweep, role: str, weights: str) -> list[list[Any]]:
    """Returns rows of a role's networks, grouped by cost."""
    groups: dict[tuple, dict[str, Run]] = {}
    for run in sweep.runs:
        if entry := run.metrics.get(role):
            made = str(run.artifacts.get(role, {}).get("folder") or run.folder)
            groups.setdefault((entry["parameters"], entry.get("multiply_adds")), {})[made] = run
    rows = []
    for runs in groups.values():
        cell = Cell({}, dict(enumerate(runs.values())))
        label = {"teacher": "teacher", "control": "student alone"}[role]
        if row := _row(role, label, cell, role, weights):
            rows.append(row)
    return rows


def _of_chain(sweep: Sweep, weights: str) -> list[list[Any]]:
    """Returns rows of the earlier teachers in a chain (assistants, generations, a generalist), with cost."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for run in sweep.runs:
        for name, entry in (run.metrics.get("chain") or {}).items():
            if weights in entry:  # not each has an average
                groups.setdefault((name, entry["parameters"]), []).append(entry)
    rows = []
    for (name, _), entries in groups.items():
        values = [entry[weights]["test"][sweep.figures.headline] for entry in entries]
        rows.append(_of_entries(name, entries, values))
    return rows


def _of_peers(cell: Cell, weights: str) -> list[list[Any]]:
    """Returns rows of the networks that learned beside the cell's student, and of the mean of them and the student."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in cell.runs.values():
        peers = run.metrics.get("peers") or {}
        mean_of = {"mean of peers and student": run.metrics["mean_of_peers"]} if "mean_of_peers" in run.metrics else {}
        for name, entry in {**peers, **mean_of}.items():
            if weights in entry:
                groups.setdefault(name, []).append(entry)
    rows = []
    for name, entries in groups.items():
        values = [entry[weights]["test"][cell.figures.headline] for entry in entries]
        rows.append(_of_entries(name, entries, values, stdev(values) if len(values) > 1 else None))
    return rows


def _of_entries(
    name: str, entries: list[Mapping[str, Any]], values: list[float], spread: float | None = None
) -> list[Any]:
    """Returns the row of entries of ``metrics.json``, which may have no cost, with their figures."""
    cost = [entries[0].get(key) for key in ("parameters", "multiply_adds")]
    seconds = [entry["seconds"] for entry in entries if "seconds" in entry]
    return ["other", name, *cost, fmean(values), spread, fmean(seconds) if seconds else None, len(values)]


def _row(kind: str, label: str, cell: Cell, role: str, weights: str) -> list[Any] | None:
    found = mean(cell, role, weights, "test", cell.figures.headline)
    entries = [run.metrics[role] for run in cell.runs.values() if run.metrics.get(role)]
    if found is None:
        return None
    seconds = fmean(entry["seconds"] for entry in entries)
    cost = [entries[0].get(key) for key in ("parameters", "multiply_adds")]
    return [kind, label, *cost, found.mean, found.sd, seconds, found.count]
