"""Table and figure of ``experiment=few_labels…``.

    python docs/results/few_labels.py SWEEP_ALL SWEEP_SAME OUT.svg

The first sweep's teacher had all labels, the second's those of the student. Prints markdown, writes the figure.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from omegaconf import OmegaConf

from tutelage.report.softened_picture import document
from tutelage.report.svg import Axes, Drawing, Scale

Runs = dict[int, list[dict[str, float]]]  # labels → a run's test accuracies in percent, by role; in the order of seeds
LINES = (
    ("control", "student alone", "#b45309", "4 3"),
    ("teacher", "teacher", "#59636f", "9 4"),
    ("student", "distilled", "#0b2447", None),
)


def read(sweep: Path) -> Runs:
    """The finished runs of a sweep."""
    found: dict[int, dict[int, dict[str, float]]] = {}
    for path in sweep.glob("*/metrics.json"):
        said, cfg = json.loads(path.read_text()), OmegaConf.load(path.with_name("config.yaml"))
        accuracy = {role: 100 * said[role]["last"]["test"]["accuracy"] for role in ("teacher", "control", "student")}
        found.setdefault(cfg.data.labelled, {})[said["seed"]] = accuracy
    return {labels: [by_seed[seed] for seed in sorted(by_seed)] for labels, by_seed in sorted(found.items())}


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard deviation."""
    return f"{mean(values):{sign}.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def table(runs: Runs) -> str:
    """A row for each number of labels."""
    lines = [
        "| labels | seeds | teacher | alone | distilled | gain | gain of each seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for labels, rows in runs.items():
        gains = [row["student"] - row["control"] for row in rows]
        means = " | ".join(spread([row[role] for row in rows]) for role in ("control", "student"))
        each = ", ".join(f"{gain:+.2f}" for gain in gains)
        lines.append(
            f"| {labels:,} | {len(rows)} | {rows[0]['teacher']:.2f} | {means} | {spread(gains, '+')} | {each} |"
        )
    return "\n".join(lines)


def figure(panels: dict[str, Runs]) -> str:
    """Accuracy over the number of labels, a panel a teacher."""
    on = Drawing("few", 760.0, 360.0, "Few labels: test accuracy in percent", "; ".join(panels))
    on.add("rect", width=on.width, height=on.height, fill="#fff")
    lowest = min(row[role] for runs in panels.values() for rows in runs.values() for row in rows for role in row)
    for place, (name, runs) in enumerate(panels.items()):
        left = 70.0 + 360 * place
        sizes = list(runs)
        axes = Axes(Scale(sizes[0] / 1.3, sizes[-1] * 1.3, left, left + 300, log=True), Scale(lowest - 1, 100, 270, 70))
        on.text(left, 34, name, "title")
        axes.draw(on, "labels (logarithmic)", "test accuracy, %", lambda x: f"{x:g}", lambda y: f"{y:g}")
        for row, (role, label, colour, dash) in enumerate(LINES):
            points = [(axes.x(n), axes.y(mean(one[role] for one in rows))) for n, rows in runs.items()]
            on.add(
                "path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), stroke=colour, stroke_dasharray=dash
            )
            for x, y in points:
                on.add("circle", cx=x, cy=y, r=4, fill=colour)
            x = left + (0, 122, 214)[row]
            on.add("path", d=f"M{x} 330L{x + 26} 330", stroke=colour, stroke_dasharray=dash)
            on.text(x + 32, 335, label, "small")
    return document(on)


def main() -> None:
    """Prints the tables, writes the figure."""
    every, same, out = map(Path, sys.argv[1:])
    panels = {"teacher with all labels": read(every), "teacher with the same few": read(same)}
    for name, runs in panels.items():
        print(f"{name}\n\n{table(runs)}\n")
    out.write_text(figure(panels))


if __name__ == "__main__":
    main()
