"""The contract of a task: everything that depends on what a label is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from tutelage.errors import TutelageError, nearest
from tutelage.tasks.figure_kinds import FigureKind, TaskFigures
from tutelage.tasks.predictions import Saved

Weighted = tuple[Tensor, Tensor | int]  # a mean, and over how much it was taken


_TASKS_OF = {  # kind and axes of labels → the tasks that learn from them
    ("floats", 2): ("multilabel", "regression"), ("integers", 1): ("classification",),
    ("integers", 2): ("token_classification", "language_model"), ("integers", 3): ("segmentation",),
}  # fmt: skip


class Validation(nn.Module):
    """Metrics of one network on validation data, logged as ``val/<name>``.

    Args:
        task: whose figures they are.
        outputs: width of the last axis of the logits.
    """

    def __init__(self, task: "Task", outputs: int):
        super().__init__()
        self.task = task
        self.means = nn.ModuleDict({name: MeanMetric() for name in task.kinds})
        self.metrics = nn.ModuleDict(task.torchmetrics(outputs))
        self.own = nn.ModuleDict({name: metric.clone() for name, metric in task.metrics.items()})

    def update(self, logits: Tensor, label: Tensor, teacher: Tensor | None) -> dict[str, Metric]:
        """Adds a batch.

        Args:
            logits: [B, …, C], float32.
            label: as the task has them.
            teacher: the teacher's logits, as ``logits``; None without a teacher.

        Returns:
            Name → the metric, which Lightning computes at the end of the epoch.
        """
        shown: dict[str, Metric] = {}
        for name, (value, count) in self.task.means(logits, label, teacher).items():
            self.means[name].update(value, count)  # type: ignore[operator]
            shown[name] = self.means[name]  # type: ignore[assignment]
        self.task.update_metrics(self.metrics.values(), logits, label)  # type: ignore[arg-type]
        update(self.own.values(), *self.task.rows(logits, label))  # type: ignore[arg-type]
        further = [*self.metrics.items(), *self.own.items()]
        return shown | cast(dict[str, Metric], dict(further))


def update(metrics: Iterable[Metric], predictions: Tensor, targets: Tensor) -> None:
    """Adds predictions and targets to metrics, if there are any."""
    if len(targets):
        for metric in metrics:
            metric.update(predictions, targets)


class Task(ABC):
    """Checks labels, and measures, stores and compares answers to them.

    In every task ``label[i]`` is what ``logits[i]`` should say, whatever the leading shape, and classes are the last
    axis.

    Args:
        headline: the figure that weights, runs and reports are compared by; None: the task's usual one.
        metrics: name → further torchmetrics, which get the probabilities (regression: the values) and labels of all
            positions with a label; they are in ``metrics.json``, curves and reports as ``<name>``.

    Raises:
        TutelageError: the headline is no figure that is measured while training, or a metric is no torchmetrics Metric
            or has a taken name.
    """

    name: ClassVar[str]
    usual: ClassVar[str]
    kinds: ClassVar[Mapping[str, FigureKind]]
    logged: ClassVar[tuple[str, ...]]  # on validation, in this order
    on_request: ClassVar[tuple[str, ...]] = ()  # on validation, where it is the headline
    beside_teacher: ClassVar[tuple[str, ...]]  # on validation, where there is a teacher
    keeps_logits: ClassVar[bool] = True  # of every example, so that networks can be compared afterwards
    has_classes: ClassVar[bool] = True  # along the last axis of the logits, by softmax
    label_description: ClassVar[str]  # for messages, such as "one integer"

    def __init__(self, headline: str | None = None, metrics: Mapping[str, Metric] | None = None):
        self.metrics = dict(metrics or {})
        for name, metric in self.metrics.items():
            if not isinstance(metric, Metric):
                raise TutelageError(f"task.metrics.{name} must be a torchmetrics Metric; found {type(metric).__name__}")
            if name in self.kinds or "/" in name or "." in name:
                raise TutelageError(f"task.metrics.{name}: the name is taken by a figure of the task, or has / or .")
        own = {
            name: FigureKind(name, "min" if one.higher_is_better is False else "max")
            for name, one in self.metrics.items()
        }
        kinds = {**self.kinds, **own}
        self.headline = headline or self.usual
        if self.headline not in (allowed := (*self.logged, *self.on_request, *own)):
            raise TutelageError(
                f"task.headline: no figure {self.headline!r} that is measured while training; "
                f"{nearest(self.headline, allowed)}"
            )
        self.figure_kinds = TaskFigures(self.name, self.headline, kinds)
        self.output_names: list[str] = []

    def name_outputs(self, names: Sequence[str]) -> None:
        """Notes the names of classes, labels or targets."""
        self.output_names = list(names)

    def on_validation(self, beside_teacher: bool) -> tuple[str, ...]:
        """Returns the names of the figures on validation while training, with those of fidelity or without."""
        own = () if self.headline in self.logged else (self.headline,)
        return (*self.logged, *own, *(self.beside_teacher if beside_teacher else ()), *self.metrics)

    def mode(self, figure: str) -> str | None:
        """Returns ``max`` or ``min`` for a figure, such as ``nll`` or ``val/nll``; None if it is not known."""
        kind = self.figure_kinds.kinds.get(figure.removeprefix("val/"))
        return None if kind is None else kind.mode

    # -- labels -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def check_labels(self, name: str, labels: Tensor) -> None:
        """Checks that labels are those of this task; their range is the data's to check.

        Args:
            name: of the split, for messages.
            labels: [N, …], int64 or float32.

        Raises:
            TutelageError: says what labels of this task are, and what was found.
        """

    def wrong_labels(self, name: str, labels: Tensor) -> TutelageError:
        """Returns the error for labels of another task."""
        kind, axes = "floats" if labels.is_floating_point() else "integers", labels.dim() - 1
        others = ", ".join(f"task={one}" for one in _TASKS_OF.get((kind, labels.dim()), ()) if one != self.name)
        learned = f", of which {others} learn{'' if ',' in others else 's'}" if others else ""
        numbers = "; answers of 0 or 1, and numbers to predict, become floats by data.label_dtype=float"
        return TutelageError(
            f"task={self.name} needs labels that are {self.label_description}; those of {name} are {kind} with "
            f"{axes} ax{'i' if axes == 1 else 'e'}s an example{learned}"
            + (numbers if kind == "integers" and (axes == 1 or not self.has_classes) else "")
        )

    @abstractmethod
    def logits_shape(self, label: Tensor, outputs: int) -> list[int]:
        """Returns the shape that logits for ``label`` must have."""

    def try_metrics(self, logits: Tensor, label: Tensor) -> None:
        """Gives further metrics a few predictions, so that one that does not take them is known before training.

        Args:
            logits: [B, …, C].
            label: as the task has them.

        Raises:
            TutelageError: names the metric.
        """
        predictions, targets = self.rows(logits, label)
        for name, metric in self.metrics.items():
            tried = metric.clone()
            try:
                update([tried], predictions, targets)
            except Exception as error:  # it is anyone's
                raise TutelageError(
                    f"task.metrics.{name}: {type(metric).__name__} does not take predictions {list(predictions.shape)} "
                    f"and labels {list(targets.shape)}, for {predictions.shape[-1]} outputs: {error}"
                ) from error
            try:
                value = tried.compute()
            except Exception:  # some need more than a few predictions
                continue
            check_number(name, value)

    # -- validation while training ------------------------------------------------------------------------------------

    def validation(self, outputs: int) -> Validation:
        """Returns fresh metrics for one training."""
        return Validation(self, outputs)

    def means(self, logits: Tensor, label: Tensor, teacher: Tensor | None) -> dict[str, Weighted]:
        """Returns the figures that are means over examples or positions, of one batch."""
        return {}

    def torchmetrics(self, outputs: int) -> dict[str, Metric]:
        """Returns the figures that are no means, by name."""
        return {}

    def update_metrics(self, metrics: Iterable[Metric], logits: Tensor, label: Tensor) -> None:
        """Adds a batch to the task's own metrics."""
        update(metrics, *self.rows(logits, label))

    @abstractmethod
    def rows(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Returns predictions and targets of the positions with a label, as torchmetrics take them."""

    # -- stored predictions -------------------------------------------------------------------------------------------

    def store(self, logits: Tensor, label: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        """Returns what is stored of each example of a batch: by default its logits and label.

        Args:
            logits: [B, …, C], float32.
            label: as the task has them.
            teacher: the teacher's logits, as ``logits``; None without a teacher, and not needed where logits are kept.

        Returns:
            Name → [B, …].
        """
        return {"logits": logits, "label": label}

    def columns(self, logits: Tensor, names: Sequence[str]) -> dict[str, list[Any]]:
        """Returns the answers to a batch as columns of a table.

        Args:
            logits: [B, C].
            names: of the C classes or outputs.

        Returns:
            Name of the column → [B] values.

        Raises:
            TutelageError: an answer is not one for an example.
        """
        raise TutelageError(
            f"task={self.name}: an example has an answer for each of its positions, which is no row of a table"
        )

    @abstractmethod
    def figures(self, own: Saved, teacher: Saved | None = None) -> dict[str, float]:
        """Returns the figures of stored predictions, and their ``count``; one that is not defined is left out.

        Args:
            own: of the network.
            teacher: of its teacher on the same examples in the same order.

        Raises:
            TutelageError: the teacher answered other examples.
        """

    def figures_on_train(self, own: Saved, teacher: Saved | None = None) -> dict[str, float]:
        """Returns :meth:`figures` on training examples; a teacher may have seen others and is left out by default."""
        return self.figures(own)

    def baseline(self, own: Saved) -> tuple[float, str] | None:
        """Returns the headline of a constant answer, and which that is in words; None if that says nothing."""
        return None


def known_positions(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Returns logits [n, C] and labels [n] of the positions with a label (integers from 0 on)."""
    kept = label >= 0
    return logits[kept], label[kept]


def kl(teacher: Tensor, logits: Tensor) -> Tensor:
    """Returns KL(teacher ‖ network) at T = 1 of each row, [...], in nats.

    Args:
        teacher: logits [..., C].
        logits: [..., C].
    """
    p, q = logits.log_softmax(-1), teacher.log_softmax(-1)
    return torch.nn.functional.kl_div(p, q, log_target=True, reduction="none").sum(-1)


def check_number(name: str, value: object) -> None:
    """Checks that a further metric returns one number.

    Raises:
        TutelageError: it does not; names the metric.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TutelageError(f"task.metrics.{name} must return one number, such as a mean; found {shape}")
