"""Tables of sweeps of ``experiment=ensemble`` and ``ensemble_unseen``.

    python docs/results/ensemble.py SPLIT SWEEP…

SPLIT is ``test``, or ``val``, by which settings were chosen. Prints markdown, of the last weights: accuracy and NLL of
each cell with what the student keeps of the ensemble's gain, and how much there is to learn from each ensemble.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from scipy import stats
from torch.nn.functional import cross_entropy

from tutelage.evaluation.predictions import Predictions
from tutelage.evaluation.results import read_answers
from tutelage.pipeline.fit import TRAIN
from tutelage.report.statistics import paired

RESAMPLES = 2000
ROLES = ("alone", "distilled", "ensemble")


class Cell(NamedTuple):
    """Settings that vary."""

    data: str
    units: int
    labels: str
    pictures: str
    epochs: int
    temperature: float
    alpha: float


@dataclass(frozen=True)
class Run:
    """One job: where the members are, and each role's figures by image, [N]."""

    seed: int
    members: tuple[Path, ...]
    by_image: Mapping[str, np.ndarray]


def answers(folder: Path, split: str) -> Predictions:
    """Returns the predictions of the last weights of a finished training."""
    found = read_answers(folder, "last", split)
    assert found is not None, f"{folder} has no answers on {split}"
    return found


def by_image(folder: Path, split: str, figure: str) -> np.ndarray:
    """[N] in the order of keys: 100 where the answer is right, or the NLL."""
    said = answers(folder, split)
    right, nll = 100.0 * (said.choice == said.label), cross_entropy(said.logits.double(), said.label, reduction="none")
    return (right if figure == "accuracy" else nll)[said.key.argsort()].numpy()


def read(sweeps: Sequence[Path], split: str, figure: str) -> dict[Cell, list[Run]]:
    """The finished jobs of some sweeps by cell, in the order of seeds."""
    found: dict[Cell, list[Run]] = {}
    for path in sorted(path for sweep in sweeps for path in sweep.glob("*/metrics.json")):
        made, cfg = (
            json.loads((path.parent / "artifacts.json").read_text()),
            OmegaConf.load(path.parent / "config.yaml"),
        )
        folders = (made["control"]["folder"], path.parent / "checkpoints", made["teacher"]["folder"])
        each = {role: by_image(Path(one), split, figure) for role, one in zip(ROLES, folders, strict=True)}
        shop = Path(made["teacher"]["folder"]).parents[1]  # members are named by kind and digest
        run = Run(cfg.seed, tuple(shop / member for member in made["teacher"]["recipe"]["members"]), each)
        found.setdefault(_cell(cfg), []).append(run)  # type: ignore[arg-type]
    return {cell: sorted(found[cell], key=lambda run: run.seed) for cell in sorted(found)}


def _cell(cfg: DictConfig) -> Cell:
    labels = "all" if cfg.data.labelled is None else f"{cfg.data.labelled:,}"
    pictures = ", ".join(
        f"{step['_target_'].rsplit('.', 1)[1]} {step.get('pixels', '')}" for step in cfg.data.augment or []
    )
    widths, loss = cfg.student.net.widths, cfg.loss
    return Cell(
        cfg.data.dataset,
        widths[0],
        labels,
        pictures or "plain",
        cfg.trainer.max_epochs,
        float(loss.temperature),
        float(loss.alpha),
    )


def fieller(above: Sequence[float], below: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Interval of the ratio of two means of pairs: all k for which mean(above − k · below) = 0 is not rejected.

    By the t-test with n − 1 degrees of freedom (Fieller 1954, J. R. Stat. Soc. B 16). Infinite where the mean below
    could be 0; NaN of a single pair.
    """
    if (n := len(above)) < 2:
        return nan, nan
    x, y = np.mean(above), np.mean(below)
    (xx, xy), (_, yy) = np.cov(above, below) * stats.t.ppf((1 + level) / 2, n - 1) ** 2 / n
    a, b, c = y * y - yy, x * y - xy, x * x - xx
    if a <= 0:
        return -inf, inf
    root = sqrt(max(0.0, b * b - a * c))
    return (b - root) / a, (b + root) / a


def over_images(runs: Sequence[Run]) -> tuple[float, float]:
    """95 % of what is kept over other draws of as many images, the networks being these: bootstrap."""
    alone, distilled, ensemble = (np.mean([run.by_image[role] for run in runs], axis=0) for role in ROLES)
    draws = np.random.default_rng(0)
    ratios = []
    for _ in range(RESAMPLES):
        rows = draws.integers(len(alone), size=len(alone))
        room = ensemble[rows].mean() - alone[rows].mean()
        ratios.append((distilled[rows].mean() - alone[rows].mean()) / room if room else inf)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def table(cells: Mapping[Cell, Sequence[Run]], split: str, figure: str) -> str:
    """A row a cell, mean ± standard deviation over seeds; kept: (distilled − alone) / (ensemble − alone), of means."""
    lines = [
        "| data | units | labels | pictures | epochs | T | alpha | seeds | members | alone | distilled | ensemble "
        "| gain | kept, % | 95 % over seeds | over images |",
        "|" + "---|" * 16,
    ]
    digits = 2 if figure == "accuracy" else 4
    for cell, runs in cells.items():
        of = {role: [float(run.by_image[role].mean()) for run in runs] for role in ROLES}
        members = [
            float(by_image(one, split, figure).mean()) for one in sorted({m for run in runs for m in run.members})
        ]
        gain, room = ([b - a for a, b in zip(of["alone"], of[role], strict=True)] for role in ROLES[1:])
        each = " | ".join(spread(values, digits) for values in (members, *of.values()))
        between = " | ".join(map(_between, (fieller(gain, room), over_images(runs))))
        kept = f"{100 * fmean(gain) / fmean(room):.0f}"
        start = " | ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in (*cell, len(runs)))
        lines.append(f"| {start} | {each} | {difference(gain, digits)} | {kept} | {between} |")
    return "\n".join(lines)


def _between(interval: tuple[float, float]) -> str:
    if not np.isfinite(interval).all():
        return "–"
    return " to ".join(f"{100 * end:.0f}" for end in interval)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation, where there is one."""
    return f"{fmean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len({*values}) > 1 else "")


def difference(values: Sequence[float], digits: int) -> str:
    """Mean and 95 % t-interval."""
    found = paired(values)
    interval = f" ({found.low:+.{digits}f} to {found.high:+.{digits}f})" if found.is_tested else ""
    return f"{found.mean:+.{digits}f}{interval}"


def knowledge(cells: Mapping[Cell, Sequence[Run]]) -> str:
    """Returns a table of what each ensemble adds to its members, on the images that they learned from and on test."""
    lines = [
        "| ensemble | images | members right, % | two members differ, % | ensemble right, % "
        "| its probability of its choice, % |",
        "|---|---|---|---|---|---|",
    ]
    for name, members in _ensembles(cells):
        for split in (TRAIN, "test"):
            said = [answers(member, split) for member in members]
            choice, label = torch.stack([one.choice for one in said]), said[0].label
            together = torch.stack([one.logits.double().softmax(1) for one in said]).mean(0)
            apart = [(a != b).double().mean() for place, a in enumerate(choice) for b in choice[place + 1 :]]
            right = (choice == label).double().mean(), (together.argmax(1) == label).double().mean()
            figures = right[0], torch.stack(apart).mean(), right[1], together.amax(1).mean()
            lines.append(f"| {name} | {split} | " + " | ".join(f"{100 * float(one):.2f}" for one in figures) + " |")
    return "\n".join(lines)


def _ensembles(cells: Mapping[Cell, Sequence[Run]]) -> Iterator[tuple[str, tuple[Path, ...]]]:
    met: set[tuple[Path, ...]] = set()
    for cell, runs in cells.items():
        for run in runs:
            if run.members not in met:
                met.add(run.members)
                yield f"{cell.data}, {cell.units} units, {cell.labels} labels", run.members


def main() -> None:
    """Prints the tables."""
    split, *sweeps = sys.argv[1:]
    for figure in ("accuracy", "nll"):
        cells = read([Path(sweep) for sweep in sweeps], split, figure)
        print(figure, table(cells, split, figure), sep="\n\n", end="\n\n")
    print(knowledge(cells))


if __name__ == "__main__":
    main()
