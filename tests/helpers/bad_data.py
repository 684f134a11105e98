"""Digits with something wrong at one example; put into a run by ``data._target_=bad_data.…``."""

from dataclasses import replace
from typing import Any

import torch

from tutelage.data.digits import Digits
from tutelage.data.examples import Examples
from tutelage.data.pixels import MemoryPixels


class NaNDigits(Digits):
    """A NaN among the pixels of training example ``at``."""

    def __init__(self, *, at: int, **common: Any):
        super().__init__(**common)
        self.at = at

    def load(self) -> tuple[Examples, Examples]:
        train, test = super().load()
        images = train.pixels[torch.arange(len(train))].clone()
        images[self.at, 0, 4, 4] = torch.nan
        return replace(train, pixels=MemoryPixels(images)), test


class MislabelledDigits(Digits):
    """A label that is no class, at one example of training or test."""

    def __init__(self, *, at: int, label: int, part: str = "train", **common: Any):
        super().__init__(**common)
        self.at, self.label, self.part = at, label, part

    def load(self) -> tuple[Examples, Examples]:
        train, test = super().load()
        labels = (train if self.part == "train" else test).labels.clone()
        labels[self.at] = self.label
        if self.part == "train":
            return replace(train, labels=labels), test
        return train, replace(test, labels=labels)
