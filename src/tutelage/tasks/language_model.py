"""The next token of a text."""

import math
from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.text import Perplexity

from tutelage.tasks.dense import SHARED, Dense
from tutelage.tasks.figure_kinds import FigureKind
from tutelage.tasks.metrics import dense
from tutelage.tasks.predictions import SavedTotals
from tutelage.types import NO_LABEL


class LanguageModel(Dense):
    """The next token: logits [B, L, V], labels [B, L], shifted in the data: ``label[i]`` follows ``input[i]``.

    Figures: NLL of a token (headline), perplexity exp(NLL), accuracy of the next token, and agreement with and KL to
    the teacher. Arguments as of :class:`~tutelage.tasks.base.Task`.
    """

    name = "language_model"
    usual = "nll"
    axes = 2
    logged = ("nll", "perplexity", "accuracy")
    kinds: ClassVar = {
        "nll": SHARED["nll"],
        "perplexity": FigureKind("perplexity", "min"),
        "accuracy": FigureKind("next-token accuracy", "max", True),
        **{name: kind for name, kind in SHARED.items() if name != "nll"},
    }
    label_description = "an integer for each token [L], the next one, -100 where none counts"

    def torchmetrics(self, outputs: int) -> dict[str, Metric]:
        """Returns the perplexity."""
        return {"perplexity": Perplexity(ignore_index=NO_LABEL)}

    def update_metrics(self, metrics: Iterable[Metric], logits: Tensor, label: Tensor) -> None:
        """Adds a batch of whole sequences."""
        for metric in metrics:
            metric.update(logits, label)

    def further(self, own: SavedTotals) -> dict[str, float]:
        """Returns the perplexity."""
        return {"perplexity": math.exp(min(dense.figures(own.fields)["nll"], 700.0))}
