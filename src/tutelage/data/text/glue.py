"""The tasks of GLUE, from its published files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tutelage.data.text.base import TextData
from tutelage.data.text.labels import labels_of
from tutelage.data.text.rows import Columns, read
from tutelage.errors import TutelageError, nearest


@dataclass(frozen=True)
class Layout:
    """The files and columns of a task's texts and labels.

    Attributes:
        folder: name of its folder.
        columns: of its files.
        classes: their names in the order of GLUE's numbers; None of numbers.
        dev: the file that published figures are measured on.
    """

    folder: str
    columns: Columns
    classes: tuple[str, ...] | None = ("0", "1")
    dev: str = "dev.tsv"


_ENTAILMENT = ("entailment", "not_entailment")
_INFERENCE = ("contradiction", "entailment", "neutral")
_MNLI = Columns("sentence1", "sentence2", "gold_label")
LAYOUTS = {
    "cola": Layout("CoLA", Columns("sentence", None, "label", None, ("source", "label", "mark", "sentence"))),
    "sst2": Layout("SST-2", Columns("sentence")),
    "mrpc": Layout("MRPC", Columns("#1 String", "#2 String", "Quality")),
    "qqp": Layout(
        "QQP", Columns("question1", "question2", "is_duplicate", short=True)
    ),  # as other readers do: the published file has some
    "stsb": Layout("STS-B", Columns("sentence1", "sentence2", "score"), None),
    "mnli": Layout("MNLI", _MNLI, _INFERENCE, "dev_matched.tsv"),
    "mnli_mismatched": Layout("MNLI", _MNLI, _INFERENCE, "dev_mismatched.tsv"),
    "qnli": Layout("QNLI", Columns("question", "sentence"), _ENTAILMENT),
    "rte": Layout("RTE", Columns("sentence1", "sentence2"), _ENTAILMENT),
    "wnli": Layout("WNLI", Columns("sentence1", "sentence2")),
}


class Glue(TextData):
    """Wang et al., "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding" (2019).

    Reads ``<root>/<task>/{train,dev}.tsv`` as published, such as ``<root>/SST-2/train.tsv``. Test figures are measured
    on ``dev``, as in papers, because GLUE's own test labels are not public; validation is drawn from ``train``.

    Args:
        root: the folder of all tasks.
        task: ``cola``, ``sst2``, ``mrpc``, ``qqp``, ``stsb``, ``mnli``, ``mnli_mismatched``, ``qnli``, ``rte``, or
            ``wnli``.
        numbers: whether it should be one whose labels are numbers, ``stsb``; None: either.
        num_classes: of the task; found.
        num_outputs: of the task; found.
        input_shape: ``[max_length]``; found.
        **common: arguments of :class:`~tutelage.data.text.base.TextData`.

    Raises:
        TutelageError: there is no such task, its labels are of the other kind, or a file is missing or damaged; names
            file and line.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("task", *TextData.seen_through)

    def __init__(
        self,
        *,
        root: str | Path,
        task: str,
        numbers: bool | None = None,
        num_classes: int | None = None,
        num_outputs: int | None = None,
        input_shape: Sequence[int] | None = None,
        **common: Any,
    ):
        if task not in LAYOUTS:
            raise TutelageError(f"data.task: GLUE has no task {task!r}; {nearest(task, LAYOUTS)}")
        own = LAYOUTS[task]
        if numbers is not None and numbers != (own.classes is None):
            choice = "data=glue, with classes as labels" if numbers else "data=glue_stsb, a regression"
            raise TutelageError(f"data.task={task} is read by {choice}")
        folder = Path(root).expanduser() / own.folder
        files = {"train": "train.tsv", "test": own.dev}
        parts = {part: read([folder / name], own.columns, "utf-8") for part, name in files.items()}
        labels = labels_of(parts, own.classes, None, None if own.classes else "float")
        super().__init__(parts=parts, labels=labels, **common)
        self.name = own.folder
