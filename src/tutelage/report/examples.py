"""Shows test images or texts on which teacher and student disagree.

Only these need the data and therefore PyTorch, which is imported here only.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tutelage.config.trust import vetted
from tutelage.errors import TutelageError
from tutelage.report.answers import Answers, both
from tutelage.report.cells import Cell, select
from tutelage.report.document import Block, Figure, Text
from tutelage.report.runs import Run
from tutelage.report.svg import data_uri
from tutelage.runtime.text import html_text
from tutelage.tasks.predictions import SavedPredictions, confidence, log_softmax

if TYPE_CHECKING:
    from tutelage.data.module import Data
    from tutelage.types import Batch

MOST = 8  # examples of each kind
_SIDE = 160  # pixels; larger images are scaled down
_LETTERS = 400  # of a text; longer ones are cut


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
        data = _data(run, trusted)
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


def _data(run: Run, trusted: Iterable[str]) -> "Data":
    """Returns the run's data, read from disk without downloading."""
    root = select(run.config, "data.root")
    changes = {"root": str(run.cwd / root)} if isinstance(root, str) else {}
    vetted(run.config.get("data"), f"{run.folder / 'config.yaml'}, data", trusted)  # before the imports
    from tutelage.config.saved import data_of

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return data_of(run.config, changes, run.folder / "config.yaml", trusted)


def _figure(
    name: str,
    title: str,
    rows: np.ndarray,
    student: SavedPredictions,
    teacher: SavedPredictions,
    data: "Data",
    names: Sequence[str],
) -> Figure:
    import torch

    test = data.splits["test"]
    places = {int(key): place for place, key in enumerate(test.keys.tolist())}
    batch = test[0, torch.tensor([places[int(key)] for key in student.key[rows]])]
    if not np.array_equal(batch["label"], student.label[rows]):
        raise TutelageError("the data are not those of the run: labels differ")
    shown = []
    for row, content in zip(rows.tolist(), _contents(data, batch, student.key[rows]), strict=True):
        lines = [f"true: {names[int(student.label[row])]}"]
        for who, p in (("teacher", teacher), ("student", student)):
            sure = float(np.exp(log_softmax(p.logits[row : row + 1]).max()))
            lines.append(f"{who}: {names[int(p.choice[row])]} ({100 * sure:.0f} %)")
        said = f"<span>{'<br>'.join(map(html_text, lines))}</span>"
        if isinstance(content, str):
            shown.append(f"<li><blockquote>{html_text(_shortened(content))}</blockquote>{said}</li>")
            continue
        alt = html_text(f"Test image {int(student.key[row])}; {'; '.join(lines)}")
        picture = f'<img src="{_picture(content)}" alt="{alt}" title="{alt}" width="96" height="96">'
        shown.append(f"<li>{picture}{said}</li>")
    caption = "The percentage is each network's confidence; the most confident disagreements come first."
    kind = "texts" if "<blockquote>" in shown[0] else "pictures"
    return Figure(name, title, f'<ul class="{kind}">{"".join(shown)}</ul>', caption, wide=True)


def _contents(data: "Data", batch: "Batch", keys: np.ndarray) -> Sequence[str | np.ndarray]:
    """Returns what examples are, as texts or pixels [H, W, C].

    Raises:
        TutelageError: they are neither.
    """
    if (texts := data.shown("test", keys.tolist())) is not None:
        return texts
    if (images := data.pictures(batch["input"])) is None:
        raise TutelageError("they are neither images nor texts")
    return list((images * 255).round().byte().permute(0, 2, 3, 1).numpy())


def _shortened(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 2]} …"


def _picture(pixels: np.ndarray) -> str:
    made = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    made.thumbnail((_SIDE, _SIDE))
    return data_uri(made)
