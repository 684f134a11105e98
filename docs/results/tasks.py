"""Table of ``experiment=multilabel_mnist``, ``segmentation_mnist``, ``regression_diabetes`` and ``imbalanced_fashion``.

    python docs/results/tasks.py SWEEP …

Prints a row of markdown for each sweep, or for each value of ``loss.class_weights`` in one.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from omegaconf import OmegaConf

from tutelage.tasks.figure_kinds import FigureKind, TaskFigures

HEAD = "| figure of test | seeds | teacher | alone | distilled | gain (95 %) | gain of each seed |\n|" + "---|" * 7
T95 = {3: 4.303, 5: 2.776, 10: 2.262}  # of Student's t, by the number of seeds


def spread(values: Sequence[float], kind: FigureKind) -> str:
    """Mean and standard deviation."""
    return f"{kind.text(mean(values))} ± {kind.text(stdev(values))}"


def row(runs: Sequence[dict[str, Any]], figure: str | None = None) -> str:
    """One row, of the headline or another figure."""
    task = TaskFigures.of(runs[0])
    kind = task.kinds[figure or task.headline]
    if kind.title == "balanced_accuracy":  # a metric of one's own is written as a number
        kind = FigureKind("balanced accuracy", "max", True)
    values = {
        role: [float(run[role]["last"]["test"][figure or task.headline]) for run in runs]
        for role in ("teacher", "control", "student")
    }
    gains = [own - alone for own, alone in zip(values["student"], values["control"], strict=True)]
    half = T95[len(runs)] * stdev(gains) / len(runs) ** 0.5
    middle, low, high = (kind.difference(mean(gains) + shift) for shift in (0, -half, half))
    interval = f"{middle} ({low} to {high})"
    cells = [
        kind.title, str(len(runs)), kind.text(values["teacher"][0]), spread(values["control"], kind),
        spread(values["student"], kind), interval, ", ".join(map(kind.difference, gains)),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the tables."""
    for sweep in map(Path, sys.argv[1:]):
        groups: dict[str, dict[int, dict[str, Any]]] = {}
        for path in sweep.glob("*/metrics.json"):
            found, cfg = json.loads(path.read_text()), OmegaConf.load(path.with_name("config.yaml"))
            groups.setdefault(str(cfg.loss.get("class_weights")), {})[found["seed"]] = found
        for weights, by_seed in groups.items():
            runs = [by_seed[seed] for seed in sorted(by_seed)]
            print(f"\n{sweep.name}, class_weights={weights}\n\n{HEAD}\n{row(runs)}")
            for figure in TaskFigures.of(runs[0]).kinds:
                if figure in runs[0]["teacher"]["last"]["test"] and figure not in (
                    TaskFigures.of(runs[0]).headline,
                    "agreement",
                    "kl_teacher",
                ):
                    print(row(runs, figure))
            seconds = [sum(run[role]["seconds"] for role in ("control", "student")) for run in runs]
            print(f"seconds: teacher {runs[0]['teacher']['seconds']:.0f}, alone and distilled {mean(seconds):.0f}")


if __name__ == "__main__":
    main()
