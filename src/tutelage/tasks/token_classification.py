"""One tag for each token of a text."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from tutelage.errors import TutelageError
from tutelage.tasks.dense import SHARED, Dense
from tutelage.tasks.figure_kinds import FigureKind
from tutelage.tasks.metrics import dense
from tutelage.tasks.predictions import SavedTotals


class TokenClassification(Dense):
    """Tagging: logits [B, L, C], labels [B, L], −100 for pieces that continue a word and for padding.

    Figures: accuracy of tokens (headline), NLL of a token, F1 of spans where the names of all classes are tags of the
    BIO scheme (O, B-x, I-x), and agreement with and KL to the teacher. Arguments as of
    :class:`~tutelage.tasks.base.Task`.
    """

    name = "token_classification"
    usual = "accuracy"
    axes = 2
    logged = ("accuracy", "nll", "span_f1")
    kinds: ClassVar = {
        "accuracy": FigureKind("token accuracy", "max", True),
        "span_f1": FigureKind("span F1", "max", True),
        **SHARED,
    }
    label_description = "an integer for each token [L], -100 where none counts"

    def name_outputs(self, names: Sequence[str]) -> None:
        """Notes the names of the tags.

        Raises:
            TutelageError: F1 of spans is the headline, and they are no BIO tags.
        """
        super().name_outputs(names)
        if self.headline == "span_f1" and not self.has_spans:
            raise TutelageError(
                f"task.headline=span_f1 needs BIO tags (O, B-x, I-x) as data.class_names; found {list(names[:5])} …"
            )

    @property
    def has_spans(self) -> bool:
        """Checks whether the classes are tags of the BIO scheme."""
        return "O" in self.output_names and all(name == "O" or name[:2] in ("B-", "I-") for name in self.output_names)

    def torchmetrics(self, outputs: int) -> dict[str, Metric]:
        """Returns F1 of spans, where there are any."""
        return {"span_f1": SpanF1()} if self.has_spans else {}

    def store(self, logits: Tensor, label: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        """Returns totals, and how many spans there are, are predicted, and both."""
        found = super().store(logits, label, teacher)
        return {**found, **self.count_spans(logits, label)} if self.has_spans else found

    def count_spans(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Returns for each sequence how many spans there are (``true``), are ``predicted``, and ``both``."""
        counts = []
        for choice, own in zip(logits.argmax(-1), label, strict=True):
            kept = own >= 0
            true, predicted = (dense.spans([self.output_names[i] for i in one[kept].tolist()]) for one in (own, choice))
            counts.append((len(true & predicted), len(predicted), len(true)))
        return dict(zip(("both", "predicted", "true"), torch.tensor(counts).unbind(1), strict=True))

    def update_metrics(self, metrics: Iterable[Metric], logits: Tensor, label: Tensor) -> None:
        """Adds a batch's spans."""
        for metric in metrics:
            counts = self.count_spans(logits, label)
            metric.update(*(counts[name].sum() for name in ("both", "predicted", "true")))

    def further(self, own: SavedTotals) -> dict[str, float]:
        """Returns F1 of spans, where there are any."""
        if "both" not in own.fields:
            return {}
        return {"span_f1": dense.f1(*(own.fields[name] for name in ("both", "predicted", "true")))}


class SpanF1(Metric):
    """F1 of spans from their numbers: 2·both / (predicted + true); 0 without any."""

    higher_is_better = True
    both: Tensor
    predicted: Tensor
    true: Tensor

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        for name in ("both", "predicted", "true"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, both: Tensor, predicted: Tensor, true: Tensor) -> None:
        """Adds numbers of spans that are right, predicted and there."""
        self.both += both.to(self.both.device)
        self.predicted += predicted.to(self.both.device)
        self.true += true.to(self.both.device)

    def compute(self) -> Tensor:
        """Returns the F1, a scalar."""
        return 2 * self.both / (self.predicted + self.true).clamp(min=1)
