"""The next token of a text."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from tutelage.tasks.dense import SHARED, Dense
from tutelage.tasks.figure_kinds import FigureKind
from tutelage.tasks.metrics import dense
from tutelage.tasks.predictions import SavedTotals


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
        return {"perplexity": Perplexity()}

    def further(self, own: SavedTotals) -> dict[str, float]:
        """Returns the perplexity."""
        return {"perplexity": math.exp(min(dense.figures(own.fields)["nll"], 700.0))}


class Perplexity(Metric):
    """exp of the mean −log p(label) over tokens."""

    higher_is_better = False
    nll: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.add_state("nll", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, label: Tensor) -> None:
        """Adds tokens: probabilities [n, V] and labels [n]."""
        right = probabilities.gather(-1, label[:, None])[:, 0].double()
        self.nll -= right.clamp(min=1e-300).log().sum()
        self.count += len(label)

    def compute(self) -> Tensor:
        """Returns the perplexity, a scalar."""
        return (self.nll / self.count.clamp(min=1)).exp()
