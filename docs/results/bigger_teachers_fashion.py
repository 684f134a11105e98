"""Tables and figures of ``assistant_fashion…``, ``early_teacher_fashion``, ``bigger_teachers_fashion``.

    python docs/results/bigger_teachers_fashion.py assistants|epochs|sizes SWEEP… [OUT.svg]

Prints markdown: figures of the last weights, mean ± standard deviation over seeds; differences are paired by seed, with
95 % t-intervals. Writes the figure: gain over the teacher's epoch, or over the teacher's accuracy.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from scipy.stats import spearmanr

from tutelage.evaluation.predictions import Predictions
from tutelage.evaluation.results import read_answers
from tutelage.report.softened_picture import document
from tutelage.report.statistics import paired
from tutelage.report.svg import Axes, Drawing, Scale, around
from tutelage.tasks.metrics.classification import figures

SHADES = ("#a9c4e4", "#7aa3d2", "#4379b8", "#1f4e8c", "#0b2447")


@dataclass(frozen=True)
class Run:
    """One job: its figures, its config, and the folders of its last teacher and of its student."""

    said: dict[str, Any]
    cfg: Any
    teacher: Path
    student: Path

    def figure(self, role: str, split: str = "test", key: str = "accuracy") -> float:
        """Of the last weights; shares in percent."""
        return (1 if key == "kl_teacher" else 100) * float(self.said[role]["last"][split][key])

    @property
    def gain(self) -> float:
        """Distilled − alone in points of test accuracy."""
        return self.figure("student") - self.figure("control")

    @property
    def entropy(self) -> float:
        """Of the teacher's softened answers to training images, nats, at the student's temperature."""
        said = read_answers(self.teacher, "last", "train")
        if said is None:
            raise SystemExit(f"{self.teacher}: no answers to training images")
        return float(torch.distributions.Categorical(logits=said.logits / self.cfg.loss.temperature).entropy().mean())

    def beside(self, first: Path) -> dict[str, float]:
        """The student's figures on test with another network as its teacher."""
        both = [read_answers(folder, "last", "test") for folder in (self.student, first)]
        student, teacher = (one for one in both if isinstance(one, Predictions))
        return figures(student, teacher)


Cells = dict[str, list[Run]]  # what varies → its runs in the order of seeds


@dataclass(frozen=True)
class Kind:
    """One experiment: what varies, a cell's name, and which cell the others are compared with."""

    varies: Callable[[DictConfig], Any]
    name: Callable[[DictConfig], str]
    against: int
    title: str
    x_name: str


def named(networks: Iterable[DictConfig]) -> str:
    """Perceptrons by their hidden units, others by their class."""
    nets = [one.net for one in networks]
    names = ["-".join(map(str, net.widths)) if "mlp" in net._target_ else net._target_.rsplit(".")[-1] for net in nets]
    return " → ".join(names) or "none"


KINDS = {
    "assistants": Kind(
        lambda cfg: len(cfg.assistants), lambda cfg: named(cfg.assistants.values()), 0,
        "Gain over the last teacher's accuracy", "last teacher's test accuracy, %",
    ),
    "epochs": Kind(
        lambda cfg: cfg.stages.teacher.weights + 1, lambda cfg: str(cfg.stages.teacher.weights + 1), -1,
        "Gain over the length of the teacher's training", "epochs of the teacher's training (logarithmic)",
    ),
    "sizes": Kind(
        lambda cfg: [len(cfg.teacher.net.widths), *cfg.teacher.net.widths], lambda cfg: named([cfg.teacher]), 0,
        "Gain over the teacher's accuracy", "teacher's test accuracy, %",
    ),
}  # fmt: skip


def read(sweeps: Sequence[Path], kind: Kind) -> Cells:
    """The finished runs of some sweeps; those with assistants only where assistants vary."""
    found: Cells = {}
    for path in sorted(path for sweep in sweeps for path in sweep.glob("*/metrics.json")):
        cfg: Any = OmegaConf.load(path.with_name("config.yaml"))
        if cfg.assistants and kind is not KINDS["assistants"]:
            continue
        folders = json.loads(path.with_name("artifacts.json").read_text())
        teacher, student = (Path(folders[role]["folder"]) for role in ("teacher", "student"))
        run = Run(json.loads(path.read_text()), cfg, teacher, student)
        found.setdefault(kind.name(cfg), []).append(run)
    cells = sorted(found.items(), key=lambda cell: kind.varies(cell[1][0].cfg))
    return {name: sorted(runs, key=lambda run: run.said["seed"]) for name, runs in cells}


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 and stdev(values) else ""
    return f"{fmean(values):.{digits}f}{deviation}"


def interval(differences: Sequence[float]) -> str:
    """Mean and 95 % interval of differences that are paired by seed."""
    found = paired(differences)
    shown = f"{fmean(differences):+.2f}"
    return f"{shown} ({found.low:+.2f} to {found.high:+.2f})" if found.low is not None else shown


def table(cells: Cells, kind: Kind, name: str) -> str:
    """A row for each teacher."""
    basis = list(cells)[kind.against]
    alone = [run.figure("control") for run in cells[basis]]
    lines = [
        f"{len(alone)} seeds; student alone {spread(alone)} %.\n",
        f"| {name} | teacher, test | train | its entropy at T | distilled, test | gain (95 % interval)"
        f" | against {basis} | agreement on test, alone | distilled | KL, train | test |",
        "|---" * 11 + "|",
    ]
    for cell, runs in cells.items():
        pairs = {run.said["seed"]: run.gain for run in cells[basis]}
        beyond = [run.gain - pairs[run.said["seed"]] for run in runs]
        said = [
            spread([run.figure("teacher") for run in runs]),
            spread([run.figure("teacher", "train") for run in runs]),
            spread([run.entropy for run in runs]),
            spread([run.figure("student") for run in runs]),
            interval([run.gain for run in runs]),
            "" if cell == basis else interval(beyond),
            *(spread([run.figure(role, key="agreement") for run in runs]) for role in ("control", "student")),
            *(spread([run.figure("student", split, "kl_teacher") for run in runs], 3) for split in ("train", "test")),
        ]
        lines.append(f"| {cell} | {' | '.join(said)} |")
    return "\n".join(lines)


def chains(cells: Cells) -> str:
    """Of each cell with assistants: the networks of its chain, and how near its students are to the first."""
    firsts = {run.said["seed"]: run.teacher for run in cells["none"]}
    lines = [
        "| assistants | accuracy along the chain | agreement with the first | KL from the first |",
        "|---" * 4 + "|",
    ]
    for cell, runs in cells.items():
        said = runs[0].said
        chain = [*said.get("chain", {}).values(), said["teacher"]]
        accuracies = " → ".join(f"{100 * one['last']['test']['accuracy']:.2f}" for one in chain)
        beside = [run.beside(firsts[run.said["seed"]]) for run in runs]
        agreement, kl = ([one[key] for one in beside] for key in ("agreement", "kl_teacher"))
        lines.append(f"| {cell} | {accuracies} | {spread([100 * one for one in agreement])} | {spread(kl, 3)} |")
    return "\n".join(lines)


def ranks(cells: Cells) -> str:
    """Returns Spearman's ρ of teachers' and students' accuracy within each seed, so that seeds do not mix, as text."""
    of_each = []
    for seed in sorted(set.intersection(*({run.said["seed"] for run in runs} for runs in cells.values()))):
        one = [run for runs in cells.values() for run in runs if run.said["seed"] == seed]
        pairs = [(run.figure("teacher"), run.figure("student")) for run in one]
        of_each.append(float(spearmanr(*zip(*pairs, strict=True)).statistic))
    each = ", ".join(f"{rho:+.2f}" for rho in of_each)
    return f"Spearman's ρ of teacher's and student's test accuracy, by seed: {each}; mean {fmean(of_each):+.2f}"


def figure(cells: Cells, kind: Kind) -> str:
    """Gain over what the teacher is: a point a run, its shade the cell; a line through the cells' means."""
    by_epoch = kind is KINDS["epochs"]

    def x_of(run: Run) -> float:
        return float(kind.varies(run.cfg)) if by_epoch else run.figure("teacher")

    means = [(fmean(map(x_of, runs)), fmean(run.gain for run in runs)) for runs in cells.values()]
    xs, ys = ([value(run) for runs in cells.values() for run in runs] for value in (x_of, lambda run: run.gain))
    on = Drawing("gain", 560.0, 400.0, kind.title, "; ".join(f"{x:.2f}: {y:+.2f}" for x, y in means))
    on.add("rect", width=on.width, height=on.height, fill="#fff")
    on.text(24, 34, kind.title, "title")
    axes = Axes(Scale(*around(xs, by_epoch), 56, 536, log=by_epoch), Scale(*around([*ys, 0.0]), 310, 80))
    axes.draw(on, kind.x_name, "gain in test accuracy, points", lambda v: f"{v:g}", lambda v: f"{v:g}")
    on.line(axes.x.start, axes.y(0.0), axes.x.end, axes.y(0.0), "axis")
    on.add("path", d="M" + "L".join(f"{axes.x(x):.1f} {axes.y(y):.1f}" for x, y in means), stroke=SHADES[-1])
    for place, (cell, runs) in enumerate(cells.items()):
        shade = SHADES[place % len(SHADES)]
        for run in runs:
            tip = f"{cell}, seed {run.said['seed']}: {run.gain:+.2f}"
            on.add("circle", cx=axes.x(x_of(run)), cy=axes.y(run.gain), r=4.5, fill=shade, stroke="#0b2447", tip=tip)
        if not by_epoch:
            on.add("circle", cx=74 + 100 * place, cy=374, r=5, fill=shade, stroke="#0b2447")
            on.text(86 + 100 * place, 379, cell)
    return document(on)


def main() -> None:
    """Prints the tables, writes the figure."""
    name, *paths = sys.argv[1:]
    kind = KINDS[name]
    cells = read([Path(path) for path in paths if not path.endswith(".svg")], kind)
    print(table(cells, kind, name))
    print("\n" + (chains(cells) if name == "assistants" else ranks(cells)))
    for path in paths:
        if path.endswith(".svg"):
            Path(path).write_text(figure(cells, kind))


if __name__ == "__main__":
    main()
