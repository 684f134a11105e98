"""Shows test images or texts on which teacher and student disagree."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tutelage.errors import TutelageError
from tutelage.report.answers import Answers, both
from tutelage.report.cells import Cell, select
from tutelage.report.document import Block, Figure, Text
from tutelage.report.runs import Run
from tutelage.report.shown import MOST, contents, gallery, run_data, test_batch
from tutelage.tasks.predictions import SavedPredictions, confidence, log_softmax

if TYPE_CHECKING:
    from tutelage.data.module import Data


def class_names(run: Run, count: int) -> list[str]:
    """Returns the names of the classes, or their numbers."""
    names = select(run.config, "data.class_names")
    return (
        [str(name) for name in names]
        if isinstance(names, list) and len(names) == count
        else list(map(str, range(count)))
    )


def examples(cell: Cell, answers: Answers, names: Sequence[str], trusted: Iterable[str] = ()) -> list[Block]:
    """Returns images of one seed's disagreements, the most confident first; or a note why there are none."""
    seed, run = next(iter(cell.runs.items()))
    student, teacher = (answers.of(run, role, "test") for role in ("student", "teacher"))
    if student is None or teacher is None or (pair := both(student, teacher)) is None:
        return [Text("No examples of disagreements: predictions of teacher and student are needed.", "note")]
    try:
        if not (kinds := disagreements(*pair)):
            return []
        data = run_data(run, trusted)
        return [
            _figure(name, f"{title} (seed {seed})", rows, *pair, data, names) for name, (title, rows) in kinds.items()
        ]
    except Exception as error:  # a data set may run any code
        return [
            Text(f"No examples of disagreements: the test set cannot be read: {str(error).splitlines()[0]}", "note")
        ]


def disagreements(student: SavedPredictions, teacher: SavedPredictions) -> dict[str, tuple[str, np.ndarray]]:
    """Returns name → (title, row numbers) for: only the teacher is right, only the student is right.

    Sorted by the smaller of the two networks' confidences, the greatest first.
    """
    sure = np.minimum(confidence(student), confidence(teacher))
    good, taught = student.choice == student.label, teacher.choice == student.label
    found = {}
    for name, title, kind in (
        ("teacher-right", "The teacher is right, the student is not", taught & ~good),
        ("student-right", "The student is right, the teacher is not", good & ~taught),
    ):
        rows = kind.nonzero()[0]
        if len(rows):
            found[name] = title, rows[(-sure[rows]).argsort(kind="stable")[:MOST]]
    return found


def _figure(
    name: str,
    title: str,
    rows: np.ndarray,
    student: SavedPredictions,
    teacher: SavedPredictions,
    data: "Data",
    names: Sequence[str],
) -> Figure:
    keys = student.key[rows]
    batch = test_batch(data, keys)
    if not np.array_equal(batch["label"], student.label[rows]):
        raise TutelageError("the data are not those of the run: labels differ")
    lines = []
    for row in rows.tolist():
        said = [f"true: {names[int(student.label[row])]}"]
        for who, p in (("teacher", teacher), ("student", student)):
            sure = float(np.exp(log_softmax(p.logits[row : row + 1]).max()))
            said.append(f"{who}: {names[int(p.choice[row])]} ({100 * sure:.0f} %)")
        lines.append(said)
    caption = "The percentage is each network's confidence; the most confident disagreements come first."
    return gallery(name, title, caption, keys, lines, contents(data, batch, keys))
