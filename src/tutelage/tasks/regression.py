"""One or several numbers for each example."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, PearsonCorrCoef, R2Score, SpearmanCorrCoef

from tutelage.errors import TutelageError
from tutelage.tasks.base import Task, Weighted
from tutelage.tasks.figure_kinds import FigureKind
from tutelage.tasks.metrics import regression
from tutelage.tasks.predictions import Saved, SavedPredictions


class Regression(Task):
    """Values [B, d] (a network's ``logits``), labels [B, d] of floats, NaN where one is not known.

    Figures: root of the mean squared error (headline), mean absolute error, R², Pearson's and Spearman's correlation,
    and mean squared difference to and correlation with the teacher (:mod:`tutelage.tasks.metrics.regression`). Metrics
    of one's own get the values and labels of examples with all labels, [n] for one number an example, else [n, d].
    Arguments as of :class:`~tutelage.tasks.base.Task`.
    """

    name = "regression"
    usual = "rmse"
    kinds: ClassVar = {
        "rmse": FigureKind("RMSE", "min"),
        "mae": FigureKind("MAE", "min"),
        "r2": FigureKind("R²", "max"),
        "pearson": FigureKind("Pearson", "max"),
        "spearman": FigureKind("Spearman", "max"),
        "mse_teacher": FigureKind("MSE to teacher", "min"),
        "pearson_teacher": FigureKind("Pearson with teacher", "max"),
    }
    logged = ("rmse", "mae", "pearson", "r2")
    on_request = ("spearman",)
    beside_teacher = ("mse_teacher",)
    has_classes = False
    label_description = "d floats an example"

    def check_labels(self, name: str, labels: Tensor) -> None:
        """Refuses labels that are not floats."""
        if labels.dim() != 2 or not labels.is_floating_point():
            raise self.wrong_labels(name, labels)

    def logits_shape(self, label: Tensor, outputs: int) -> list[int]:
        """Returns [B, d]."""
        return [len(label), outputs]

    def means(self, logits: Tensor, label: Tensor, teacher: Tensor | None) -> dict[str, Weighted]:
        """Returns the mean squared difference to the teacher."""
        if teacher is None:
            return {}
        return {"mse_teacher": ((logits - teacher).square().mean(), logits.numel())}

    def torchmetrics(self, outputs: int) -> dict[str, Metric]:
        """Returns errors and correlations; correlations of several numbers are left to the stored predictions.

        Raises:
            TutelageError: the headline is a figure of one number an example, and there are several.
        """
        found: dict[str, Metric] = {"rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError()}
        if outputs == 1:
            found |= {"pearson": PearsonCorrCoef(), "r2": R2Score()}
            if self.headline == "spearman":  # else not: it keeps all values, and says so
                found["spearman"] = SpearmanCorrCoef()
        elif self.headline not in (*found, *self.metrics):
            raise TutelageError(
                f"task.headline={self.headline} is measured while training if an example has one number; these have "
                f"{outputs}"
            )
        return found

    def rows(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Returns values and labels of the examples with all labels."""
        kept = ~label.isnan().any(1)
        values, labels = logits[kept], label[kept]
        return (values[:, 0], labels[:, 0]) if label.shape[1] == 1 else (values, labels)

    def columns(self, logits: Tensor, names: Sequence[str]) -> dict[str, list[Any]]:
        """Returns ``prediction``; of several numbers an example one column each."""
        if len(names) == 1:
            return {"prediction": logits[:, 0].tolist()}
        return {f"prediction({name})": logits[:, place].tolist() for place, name in enumerate(names)}

    def figures(self, own: Saved, teacher: Saved | None = None) -> dict[str, float]:
        """Returns :func:`tutelage.tasks.metrics.regression.figures`."""
        return regression.figures(own, teacher)  # type: ignore[arg-type]

    def baseline(self, own: Saved) -> tuple[float, str] | None:
        """Returns the RMSE of always giving the mean: the labels' standard deviation."""
        if self.headline != "rmse" or not isinstance(own, SavedPredictions):
            return None
        label = own.label.astype(np.float64)
        return float(np.sqrt(np.nanmean((label - np.nanmean(label, 0)) ** 2))), "always giving the mean"
