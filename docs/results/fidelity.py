"""Table of sweeps of ``experiment=fidelity``.

    python docs/results/fidelity.py SWEEP…

Prints markdown: mean ± standard deviation over seeds, of the last weights.
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from omegaconf import OmegaConf


class Cell(NamedTuple):
    """What varies: hidden units, epochs, pictures of an image."""

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
        for role, name in (("control", "alone"), ("student", "distilled")):
            said = " | ".join(spread(runs, role, *where) for where in (("test", "accuracy"), *keys))
            lines.append(f"| {cell.units} | {cell.epochs} | {cell.pictures} | {name} | {said} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(read([Path(one) for one in sys.argv[1:]])))
