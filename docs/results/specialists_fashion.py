"""Tables of sweeps of ``experiment=specialists_fashion``.

    python docs/results/specialists_fashion.py SPLIT WITH ALONE…

SPLIT is ``test`` or ``val``. The jobs of the sweep WITH have a generalist and specialists as their teacher, those of
the others that teach the same seeds something else, such as the generalist alone (``sources=frozen``). Prints
markdown, of the last weights: errors of the teachers, of each specialist's images, and of the students.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from omegaconf import OmegaConf

from tutelage.evaluation.predictions import combined_predictions
from tutelage.evaluation.results import read_answers
from tutelage.report.statistics import paired

Runs = dict[int, dict[str, Any]]  # seed → metrics.json, and the generalist's folder where there is one


def read(sweep: Path) -> Runs:
    """The finished jobs of a sweep, one a seed."""
    found = []
    for path in sweep.glob("*/metrics.json"):
        run, teacher = json.loads(path.read_text()), json.loads((path.parent / "artifacts.json").read_text())["teacher"]
        if "specialists" in run:
            run["folder"] = Path(teacher["folder"]).parents[1] / teacher["recipe"]["members"][0]
        found.append(run)
    return {run["seed"]: run for run in sorted(found, key=lambda run: run["seed"])}


def class_names(sweep: Path) -> list[str]:
    """Of the sweep's data."""
    return list(OmegaConf.load(next(sweep.glob("*/config.yaml"))).data.class_names)


def errors(run: dict[str, Any], role: str, split: str) -> int:
    """Counts the images that a role of a job, or its generalist, gets wrong."""
    return run.get("chain", {}).get(role, run.get(role))["last"][split]["errors"]


def pairs(runs: Runs, split: str) -> list[int]:
    """Errors of the mean of two generalists, each with that of the next seed, the last with the first."""
    found = [read_answers(run["folder"], "last", split) for run in runs.values()]
    said = [one for one in found if one is not None]
    return [
        int((combined_predictions([one, other]).choice != one.label).sum())
        for one, other in zip(said, said[1:] + said[:1], strict=True)
    ]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{fmean(values):,.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def difference(after: Sequence[float], before: Sequence[float]) -> str:
    """The mean difference, and its 95 % interval, paired by seed."""
    found = paired([a - b for a, b in zip(after, before, strict=True)])
    return f"{found.mean:+.1f}" + (f" ({found.low:+.1f} to {found.high:+.1f})" if found.is_tested else "")


def networks(teachers: Mapping[str, Runs], split: str) -> str:
    """Errors of teachers and students, a row each, with the difference to the generalist or to the student alone.

    Args:
        teachers: name → its jobs; those with specialists first.
        split: ``val`` or ``test``.
    """
    first = next(iter(teachers.values()))
    generalist, alone = ([errors(run, role, split) for run in first.values()] for role in ("generalist", "control"))
    lines = ["| network | errors | difference, 95 % interval |", "|---|---|---|", _row("generalist", generalist)]
    for name, runs in teachers.items():
        said = [errors(runs[seed], "teacher", split) for seed in first]
        if said != generalist:
            lines.append(_row(name, said, generalist))
    lines.append(_row("two generalists", pairs(first, split), generalist))
    lines.append(_row("student alone", alone))
    for name, runs in teachers.items():
        lines.append(_row(f"distilled: {name}", [errors(runs[seed], "student", split) for seed in first], alone))
    return "\n".join(lines)


def _row(name: str, said: Sequence[float], before: Sequence[float] | None = None) -> str:
    return f"| {name} | {spread(said)} | {difference(said, before) if before else ''} |"


def groups(runs: Runs, names: Sequence[str], split: str) -> str:
    """Returns a table of each specialist's use and of the errors there; means over the seeds that have the group."""
    found: dict[tuple[int, ...], list[dict[str, int]]] = defaultdict(list)
    for run in runs.values():
        for entry in run["specialists"]:
            found[tuple(entry["classes"])].append(entry[split])
    lines = ["| group | seeds | images asked about | errors, generalist | with specialists |", "|---|---|---|---|---|"]
    for classes, entries in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        figures = [fmean(entry[key] for entry in entries) for key in ("asked", "errors_generalist", "errors")]
        of = ", ".join(names[number] for number in classes)
        lines.append(f"| {of} | {len(entries)} | " + " | ".join(f"{figure:,.0f}" for figure in figures) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints both tables."""
    split, *sweeps = sys.argv[1:]
    folders = [Path(sweep) for sweep in sweeps]
    teachers = {folder.name.replace("_", " "): read(folder) for folder in folders}
    print(networks(teachers, split), groups(read(folders[0]), class_names(folders[0]), split), sep="\n\n")


if __name__ == "__main__":
    main()
