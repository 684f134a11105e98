"""scikit-learn's diabetes data: ten measurements of a patient, and a number for the disease a year later."""

from typing import Any

import torch
from sklearn.datasets import load_diabetes
from torch.utils.data import TensorDataset

from tutelage.data.dataset import DatasetData
from tutelage.data.examples import divide


class Diabetes(DatasetData):
    """Efron, Hastie, Johnstone and Tibshirani, "Least Angle Regression" (2004): 442 patients, inputs [10], labels [1].

    The test set is drawn once, whatever the seeds; inputs and labels are standardised with mean and standard deviation
    of the training split.

    Args:
        test_size: number (below 1: fraction) of test examples.
        val_size: see :class:`~tutelage.data.module.Data`.
        split_seed: see :class:`~tutelage.data.module.Data`.
        **common: arguments of :class:`~tutelage.data.dataset.DatasetData`.

    Raises:
        TutelageError: a size leaves nothing.
    """

    def __init__(self, *, test_size: float = 88, val_size: float = 71, split_seed: int = 0, **common: Any):
        found = load_diabetes(scaled=False)
        inputs, labels = torch.tensor(found.data), torch.tensor(found.target)[:, None]
        rest, test = divide(len(inputs), test_size, "data.test_size", "diabetes", "test")
        own = rest[divide(len(rest), val_size, "data.val_size", split_seed, "val")[0]]  # the training split of Data
        inputs, labels = ((x - x[own].mean(0)) / x[own].std(0) for x in (inputs, labels))
        train, held = (TensorDataset(inputs[rows].float(), labels[rows].float()) for rows in (rest, test))
        super().__init__(train=train, test=held, val_size=val_size, split_seed=split_seed, **common)
        self.name, self.input_names = type(self).__name__, list(found.feature_names)
