"""Shading of confusion matrices, in TensorBoard and in reports."""

import numpy as np

WRITTEN_CLASSES = 20  # with more classes, a drawn confusion matrix has no text


def shading(matrix: np.ndarray, difference: bool = False) -> np.ndarray:
    """Returns how dark each cell is, in [0, 1]: the square root of its share, so that rare errors show.

    Args:
        matrix: [C, C] counts, rows true and columns predicted; or the difference of two such matrices.
        difference: whether it is a difference: the share is of its largest entry, else of the row's sum.
    """
    size = np.abs(matrix).astype(float)
    whole = np.full((len(size), 1), size.max(initial=0)) if difference else size.sum(1, keepdims=True)
    return np.sqrt(np.divide(size, whole, out=np.zeros_like(size), where=whole > 0))
