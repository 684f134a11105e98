"""Shows test examples on which teacher and student differ most, of tasks other than classification."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tutelage.errors import TutelageError
from tutelage.report.cells import Cell
from tutelage.report.document import Block, Text
from tutelage.report.examples import class_names
from tutelage.report.runs import Run
from tutelage.report.shown import MOST, contents, gallery, run_data, test_batch
from tutelage.tasks.predictions import Saved, SavedPredictions, SavedTotals, read_saved

_MOST_OUTPUTS = 6  # numbers or labels of an example that are named


def differences(cell: Cell, task: str, weights: str, trusted: Iterable[str] = ()) -> list[Block]:
    """Returns examples of one seed's greatest differences, or a note why there are none.

    Of answers to several labels the difference of two networks is that of their probabilities, of numbers that of the
    numbers, each as a mean over outputs; of pixels and tokens that of the shares that are right.

    Args:
        cell: of the report.
        task: its name.
        weights: of the student: ``last``, ``best`` or ``average``.
        trusted: packages whose data sets may be built.
    """
    seed, run = next(iter(cell.runs.items()))
    try:
        student, teacher = (_saved(run, role, weights) for role in ("student", "teacher"))
        if student is None or teacher is None or not np.array_equal(student.key, teacher.key):
            return [Text("No examples: answers of teacher and student on the same test set are needed.", "note")]
        distance, said = _of_task(task, student, teacher, run)
        rows = (-distance).argsort(kind="stable")[:MOST]
        lines = [said(row) for row in rows[distance[rows] > 0].tolist()]
        if not lines:
            return []
        keys = student.key[rows[: len(lines)]]
        data = run_data(run, trusted)
        batch = test_batch(data, keys)
        title = f"Where teacher and student differ most (seed {seed})"
        shown = contents(data, batch, keys)
        return [gallery("differences", title, "The greatest differences come first.", keys, lines, shown)]
    except Exception as error:  # a data set may run any code
        return [Text(f"No examples: the test set cannot be shown: {str(error).splitlines()[0]}", "note")]


def _saved(run: Run, role: str, weights: str) -> Saved | None:
    place = run.place(role)
    return read_saved(place, run.weights(role, weights), "test") if place else None


def _of_task(task: str, student: Saved, teacher: Saved, run: Run) -> tuple[np.ndarray, Callable[[int], list[str]]]:
    """Returns each example's difference [N], and a function from its row to what is said of it."""
    if isinstance(student, SavedPredictions) and isinstance(teacher, SavedPredictions):
        names = class_names(run, student.logits.shape[1])
        if task == "multilabel":
            p, q = (1 / (1 + np.exp(-one.logits.astype(np.float64))) for one in (student, teacher))
            return np.abs(p - q).mean(1), lambda row: _labels(names, student.label[row], q[row], p[row])
        z, t = student.logits, teacher.logits
        return np.abs(z - t).mean(1), lambda row: _numbers(names, student.label[row], t[row], z[row])
    if isinstance(student, SavedTotals) and isinstance(teacher, SavedTotals):
        mine, theirs = (one.fields["hits"] / one.fields["positions"].clip(1) for one in (student, teacher))
        return np.abs(mine - theirs), lambda row: [
            f"teacher: {100 * theirs[row]:.0f} % of positions right", f"student: {100 * mine[row]:.0f} %"
        ]  # fmt: skip
    raise TutelageError("teacher and student stored different things")


def _labels(names: Sequence[str], label: np.ndarray, teacher: np.ndarray, student: np.ndarray) -> list[str]:
    def named(chosen: np.ndarray) -> str:
        found = [name for name, yes in zip(names, chosen, strict=True) if yes]
        return ", ".join(found[:_MOST_OUTPUTS]) + (" …" if len(found) > _MOST_OUTPUTS else "") or "none"

    return [f"true: {named(label == 1)}", f"teacher: {named(teacher > 0.5)}", f"student: {named(student > 0.5)}"]


def _numbers(names: Sequence[str], label: np.ndarray, teacher: np.ndarray, student: np.ndarray) -> list[str]:
    several = len(names) > 1
    each = zip(names, label.tolist(), teacher.tolist(), student.tolist(), strict=True)
    return [
        f"{f'{name}: ' if several else ''}true {y:.3g}, teacher {t:.3g}, student {z:.3g}"
        for name, y, t, z in list(each)[:_MOST_OUTPUTS]
    ]
