"""scikit-learn's handwritten digits: 1,797 images of 8×8, enough to try a whole experiment in seconds."""

from typing import Any

import torch
from sklearn.datasets import load_digits

from tutelage.data.base import ImageData
from tutelage.data.examples import Examples, divide
from tutelage.data.pixels import MemoryPixels


class Digits(ImageData):
    """Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", the copy inside scikit-learn.

    The set has no test split. A fixed one is drawn: the first ``test_size`` of the permutation seeded with
    ("digits", "test"), in ascending order; the rest, in ascending order, is the training set.

    Args:
        test_size: number (below 1: fraction) of the 1,797 images for the test.
        **common: arguments of :class:`~tutelage.data.base.ImageData`.
    """

    def __init__(self, *, test_size: float = 297, **common: Any):
        super().__init__(**common)
        self.test_size = test_size

    def load(self) -> tuple[Examples, Examples]:
        """Returns images in [0, 1], scaled from the levels 0 to 16."""
        digits = load_digits()
        images, labels = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target)
        rest, test = (
            Examples(MemoryPixels(images[rows]), labels[rows])
            for rows in divide(len(labels), self.test_size, "data.test_size", "digits", "test")
        )
        return rest, test
