"""Section "exports": exported students and their teachers, their headline against latency."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from tutelage.checkpoints.header import is_of_other_weights
from tutelage.errors import TutelageError
from tutelage.report.cells import Sweep
from tutelage.report.charts import Point, against_cost
from tutelage.report.document import Block, Figure, Section, Table, Text, number, text, titled, value_of
from tutelage.report.runs import Run
from tutelage.runtime import manifest
from tutelage.runtime.json_files import read_json
from tutelage.runtime.json_shape import Form, check

_ENTRY: Form = {"bytes": "a size", "figures": {"*?": "a number"}, "latency_ms": {"*?": "a number"}}
_FORM: Form = {
    "weights": "a text", "split": "a text", "threads": "a size", "trained": _ENTRY, "teacher?": _ENTRY,
    "formats": {"*?": _ENTRY},
}  # fmt: skip
_BATCHES = {"1": "batch 1", "64": "batch 64"}


def exports(sweep: Sweep) -> list[Section]:
    """Returns the section on the exports in the runs' folders; empty without any."""
    rows: list[list[Any]] = []
    omitted: list[str] = []
    threads: set[int] = set()
    for run in sweep.runs:
        for name, document in _documents(run, omitted):
            threads.add(document["threads"])
            rows += _rows(run, name, document, sweep.figures.headline)
    if not rows and not omitted:
        return []
    blocks: list[Block] = [Text(why, "note") for why in omitted]
    if rows:
        blocks += [*_pictures(rows, sweep), _table(rows, sweep, threads)]
    return [Section("exports", "Exported", blocks)]


def _documents(run: Run, omitted: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields each export by the name of its weights, such as ``last``; notes those that can't be shown, and why."""
    place = run.folder / "export"
    for path in sorted(place.rglob("export.json")):
        name = path.parent.relative_to(place).as_posix()
        try:
            manifest.check_file(path.parent, path.name)
            document: Mapping[str, Any] = check(read_json(path), _FORM, str(path))
        except TutelageError as error:
            omitted.append(f"{error}: this export is not shown")
            continue
        weights = run.folder / "checkpoints" / f"{name}.safetensors"
        if is_of_other_weights(document["weights"], weights):
            omitted.append(f"{path} is of earlier weights: {weights} was written since; this export is not shown")
        else:
            yield name, document


def _rows(run: Run, weights: str, document: Mapping[str, Any], headline: str) -> Iterator[list[Any]]:
    """Yields role, label, headline, kB and latencies of what was measured on test."""
    if document["split"] != "test":
        return
    network = PurePosixPath(weights).parent.as_posix()  # such as peers/0; the student's weights are in no folder
    trained, of = ("student in PyTorch", "") if network == "." else (f"{network} in PyTorch", f" of {network}")
    roles = {"student in PyTorch": "student", "teacher in PyTorch": "teacher"}
    found = {trained: document["trained"], **{f"{name}{of}": one for name, one in document["formats"].items()}}
    found |= {"teacher in PyTorch": document["teacher"]} if "teacher" in document else {}
    for name, one in found.items():
        latencies = [one["latency_ms"].get(size) for size in _BATCHES]
        if headline in one["figures"]:
            label = f"{name}, {run.folder.name}"
            yield [roles.get(name, "other"), label, one["figures"][headline], one["bytes"] / 1000, *latencies]


def _pictures(rows: list[list[Any]], sweep: Sweep) -> Iterator[Block]:
    kind = sweep.figures.main
    for place, name in enumerate(_BATCHES.values()):
        points = [Point(row[0], row[1], row[4 + place], row[2]) for row in rows if row[4 + place]]
        if points:
            title = f"Test {kind.title} against latency, {name}"
            drawn = against_cost(f"latency-{place}", title, f"milliseconds, {name}", kind, points)
            yield Figure(f"latency-{place}", title, drawn, "Hollow diamonds: exported files.")


def _table(rows: list[list[Any]], sweep: Sweep, threads: set[int]) -> Table:
    kind = sweep.figures.main
    columns = {
        "file": text, f"test {titled(kind)}": value_of(kind), "kB": number,
        **{f"ms, {name}": number for name in _BATCHES.values()},
    }  # fmt: skip
    used = " or ".join(map(str, sorted(threads)))
    caption = f"Exported students and their teachers: median latency on the CPU, threads: {used}"
    return Table("exports", caption, columns, [row[1:] for row in rows], shown=20, folded=len(rows) > 12)
