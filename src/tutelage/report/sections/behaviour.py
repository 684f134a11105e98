"""Section "behaviour" of the chosen cell's networks: fidelity, calibration, classes, and where they differ."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from tutelage.report.answers import Answers, both, per_class, reliability_bins, total_confusion
from tutelage.report.cells import Cell
from tutelage.report.charts import NAMES, reliability
from tutelage.report.document import Block, Figure, Section, Table, Text, number, percent, points, spread, text
from tutelage.report.examples import class_names, examples
from tutelage.report.matrices import confusion
from tutelage.report.runs import ROLES
from tutelage.tasks.metrics.classification import expected_calibration_error
from tutelage.tasks.predictions import SavedPredictions

SPLITS = ("train", "val", "test")
_MOST_CLASSES = 20  # of a table; of more classes those that changed most come first


def behaviour(cell: Cell, answers: Answers, trusted: Iterable[str] = (), images: bool = True) -> Section:
    """Returns the section, from the predictions of the cell's runs.

    Args:
        cell: the chosen cell.
        answers: its predictions.
        trusted: packages whose data sets may be built.
        images: whether to show test images on which teacher and student disagree.
    """
    predictions = {
        role: [found for run in cell.runs.values() if (found := answers.of(run, role, "test"))] for role in ROLES
    }
    blocks: list[Block] = [
        Text(f"For the chosen cell, {cell.name}, over its seeds; on test data unless stated otherwise.")
    ]
    blocks.append(_fidelity(cell, answers))
    expected = [role for role in ROLES if any(role in run.metrics for run in cell.runs.values())]
    if absent := [NAMES[role] for role in expected if not predictions[role]]:
        blocks.append(
            Text(f"No predictions could be read of: {', '.join(absent)}. Parts that need them are left out.", "note")
        )
    known = {role: found for role, found in predictions.items() if found}
    names = class_names(next(iter(cell.runs.values())), next(iter(known.values()))[0].logits.shape[1]) if known else []
    blocks += _calibration(known)
    matrices = {role: total_confusion(found) for role, found in known.items()}
    if matrices:
        blocks.append(_classes(matrices, names))
        blocks += _confusions(matrices, names)
    blocks += _who_is_right(cell, answers)
    if images:
        blocks += examples(cell, answers, names, trusted)
    return Section("behaviour", "Behaviour of teacher, control and student", blocks)


def _fidelity(cell: Cell, answers: Answers) -> Table:
    """Returns a table of accuracy, NLL, ECE, agreement and KL on training, validation and test data."""
    rows = []
    for split in SPLITS:
        for role in ROLES:
            runs = {run.place(role): run for run in cell.runs.values()}.values()  # a shared network once
            if found := [one for run in runs if (one := answers.figures(run, role, split))]:
                rows.append([split, NAMES[role], *_means(found)])
    columns = {
        "split": text, "network": text, "accuracy, %": percent, "accuracy sd": spread, "NLL": number, "ECE": number,
        "agreement with teacher, %": percent, "agreement sd": spread, "KL from teacher, nats": number, "KL sd": number,
    }  # fmt: skip
    caption = "Accuracy, calibration and fidelity by split (train: at most 10,000 examples, as they are)"
    return Table("fidelity", caption, columns, rows)


def _means(found: Sequence[Mapping[str, float]]) -> list[float | None]:
    row: list[float | None] = []
    for name, spreads in (
        ("accuracy", True),
        ("nll", False),
        ("ece", False),
        ("agreement", True),
        ("kl_teacher", True),
    ):
        values = [one[name] for one in found if name in one]
        row.append(fmean(values) if values else None)
        if spreads:
            row.append(stdev(values) if len(values) > 1 else None)
    return row


def _calibration(predictions: Mapping[str, Sequence[SavedPredictions]]) -> Iterable[Block]:
    for role, found in predictions.items():
        title = f"Reliability of the {NAMES[role]}"
        ece = fmean(expected_calibration_error(p) for p in found)
        name = f"reliability-{role}"
        drawn = reliability(name, title, role, reliability_bins(found), ece)
        yield Figure(
            name, title, drawn, "A bar below the dashed diagonal: overconfident. Dashed bars: fewer than 10 examples."
        )


def _classes(matrices: Mapping[str, np.ndarray], names: Sequence[str]) -> Table:
    scores = {role: per_class(matrix) for role, matrix in matrices.items()}
    columns = {"class": text, "examples": lambda value: f"{value:.0f}"}
    for role in matrices:
        columns |= {f"{NAMES[role]}: {what}": percent for what in ("precision", "recall", "F1")}
    pair = "control" in scores and "student" in scores
    if pair:
        columns["F1, distilled − alone"] = points
    count = next(iter(matrices.values())).sum(1)
    rows: list[list[Any]] = []
    for c, name in enumerate(names):
        row = [name, float(count[c]), *(float(score[c]) for role in matrices for score in scores[role])]
        rows.append([*row, float(scores["student"][2][c] - scores["control"][2][c])] if pair else row)
    if len(rows) > _MOST_CLASSES and pair:
        rows.sort(key=lambda row: -abs(row[-1]))
    caption = "Precision, recall and F1 of each class, %, from mean counts over seeds"
    return Table("classes", caption, columns, rows, shown=_MOST_CLASSES)


def _confusions(matrices: Mapping[str, np.ndarray], names: Sequence[str]) -> Iterable[Block]:
    for role, matrix in matrices.items():
        title = f"Confusion matrix of the {NAMES[role]}"
        drawn = confusion(f"confusion-{role}", title, matrix, names)
        yield Figure(f"confusion-{role}", title, drawn, "Mean counts over seeds, shaded by their share of the row.")
    if "control" in matrices and "student" in matrices:
        title = "Difference of confusion: distilled − alone"
        drawn = confusion(
            "confusion-difference", title, matrices["student"] - matrices["control"], names, difference=True
        )
        caption = "Change in the number of examples; an improvement is more on the diagonal and fewer off it."
        yield Figure("confusion-difference", title, drawn, caption)


def _who_is_right(cell: Cell, answers: Answers) -> Iterable[Block]:
    """Yields a table of which of teacher and student (and control) is right on test, mean over seeds."""
    rows = []
    for role in ("control", "student"):
        shares = []
        for run in cell.runs.values():
            own, teacher = answers.of(run, role, "test"), answers.of(run, "teacher", "test")
            if own is None or teacher is None or (pair := both(own, teacher)) is None:
                continue
            p, q = pair
            good, taught, same = p.choice == p.label, q.choice == q.label, p.choice == q.choice
            rights = [good & taught, ~good & taught, good & ~taught, ~good & ~taught & same, ~good & ~taught & ~same]
            shares.append([float(one.mean()) for one in rights])
        if shares:
            rows.append([NAMES[role], *(fmean(column) for column in zip(*shares, strict=True))])
    if rows:
        kinds = (
            "both right",
            "only the teacher right",
            "only the network right",
            "both wrong, same class",
            "both wrong, different classes",
        )
        columns = {"network": text} | dict.fromkeys(kinds, percent)
        yield Table("right", "Who is right, % of test examples, beside the teacher", columns, rows)
