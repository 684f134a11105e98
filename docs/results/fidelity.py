"""Table and figure of sweeps of ``experiment=fidelity``.

    python docs/results/fidelity.py OUT.svg SWEEP…

Prints markdown, mean ± standard deviation over seeds, of the last weights; writes the figure, a point a run.
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from tutelage.report.softened_picture import document
from tutelage.report.svg import Axes, Drawing, Scale, around

ROLES = {"control": ("alone", "#b45309"), "student": ("distilled", "#0b2447")}


class Cell(NamedTuple):
    """Settings that vary: hidden units, epochs, pictures of an image."""

    units: int
    epochs: int
    pictures: int


def read(sweeps: list[Path]) -> dict[Cell, list[dict[str, Any]]]:
    """The finished runs of some sweeps by cell, in the order of seeds."""
    found: dict[Cell, list[dict[str, Any]]] = {}
    for path in sorted(path for sweep in sweeps for path in sweep.glob("*/metrics.json")):
        cfg = OmegaConf.load(path.with_name("config.yaml"))
        epochs = cfg.trainer.max_epochs
        cell = Cell(cfg.student.net.widths[0], epochs, cfg.data.views or (epochs if cfg.data.augment else 1))
        found.setdefault(cell, []).append(json.loads(path.read_text()))
    return {cell: sorted(found[cell], key=lambda run: run["seed"]) for cell in sorted(found)}


def spread(runs: list[dict[str, Any]], role: str, split: str, key: str) -> str:
    """Mean and standard deviation; shares in percent."""
    digits, factor = (4, 1.0) if key == "kl_teacher" else (2, 100.0)
    values = [factor * run[role]["last"][split][key] for run in runs]
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def table(cells: dict[Cell, list[dict[str, Any]]]) -> str:
    """Two rows a cell: alone, and distilled."""
    keys = [(split, key) for key in ("agreement", "kl_teacher") for split in ("train", "test")]
    lines = [
        "| units | epochs | pictures | | test accuracy | agreement, train | test | KL, train | test |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell, runs in cells.items():
        for role, (name, _) in ROLES.items():
            said = " | ".join(spread(runs, role, *where) for where in (("test", "accuracy"), *keys))
            lines.append(f"| {cell.units} | {cell.epochs} | {cell.pictures} | {name} | {said} |")
    return "\n".join(lines)


def figure(cells: dict[Cell, list[dict[str, Any]]]) -> str:
    """Accuracy over agreement with the teacher, on test; larger points are larger students."""
    points = [
        (100 * test["agreement"], 100 * test["accuracy"], role, cell)
        for cell, runs in cells.items()
        for role in ROLES
        for test in (run[role]["last"]["test"] for run in runs)
    ]
    on = Drawing("fidelity", 560.0, 400.0, "Fidelity against accuracy", f"{len(points)} networks; a point a run.")
    on.add("rect", width=on.width, height=on.height, fill="#fff")
    on.text(24, 34, "More like the teacher is not more right", "title")
    x, y = around([point[0] for point in points]), around([point[1] for point in points])
    axes = Axes(Scale(*x, 64, 536), Scale(*y, 310, 80))
    axes.draw(on, "agreement with the teacher, % of test", "test accuracy, %", lambda v: f"{v:g}", lambda v: f"{v:g}")
    for agreement, accuracy, role, cell in points:
        name, colour = ROLES[role]
        look: dict[str, Any] = {"fill": "#fff" if role == "control" else colour, "stroke": colour, "stroke_width": 2.0}
        tip = f"{name}: {cell.units} units, {cell.epochs} epochs, {cell.pictures} pictures an image"
        on.add("circle", cx=axes.x(agreement), cy=axes.y(accuracy), r=3 + cell.units / 32, tip=tip, **look)
    for place, (name, colour) in enumerate(ROLES.values()):
        fill = colour if place else "#fff"
        on.add("circle", cx=80 + 130 * place, cy=374, r=5, fill=fill, stroke=colour, stroke_width=2)
        on.text(94 + 130 * place, 379, name)
    return document(on)


def main() -> None:
    """Prints the table, writes the figure."""
    out, *sweeps = map(Path, sys.argv[1:])
    cells = read(sweeps)
    print(table(cells))
    out.write_text(figure(cells))


if __name__ == "__main__":
    main()
