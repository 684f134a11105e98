"""The label of one sample of anyone's dataset as a tensor, and the labels of a batch where samples bring them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutelage.data.fields import LABEL, as_tensor, stacked
from tutelage.data.labels import no_labels
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL


@dataclass(frozen=True)
class LabelReader:
    """Makes a tensor of a sample's label.

    Args:
        dtype: ``int`` or ``float``; None: floats and several bools are floats, all else is integers.
        ignore: an integer that stands for no label, as 255 does in many masks of pixels.

    Raises:
        TutelageError: ``dtype`` is none of these.
    """

    dtype: str | None = None
    ignore: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in (None, "int", "float"):
            raise TutelageError(f"data.label_dtype must be int, float or null; found {self.dtype!r}")

    def __call__(self, value: Any, where: str) -> Tensor:
        """Returns an int64 of any shape, or float32 [K].

        Args:
            value: a number, list, array, tensor, or a picture whose levels are classes.
            where: what errors call the sample.

        Raises:
            TutelageError: it is no label.
        """
        if isinstance(value, Image.Image):
            if len(value.getbands()) != 1:
                raise TutelageError(f"{where}: its label is a picture of mode {value.mode}; expected one class a pixel")
            value = np.array(value)
        if isinstance(value, str | bytes | dict) or value is None or (isinstance(value, bool) and self.dtype is None):
            raise TutelageError(
                f"{where}: its label is {value!r:.40} ({type(value).__name__}); expected a whole number, that of a "
                "class, or several numbers (data.fields says which part of a sample is the label)"
            )
        return self.column(as_tensor(LABEL, value, where), where, single=True)

    def column(self, found: Tensor, where: str, single: bool = False) -> Tensor:
        """Returns one label, or all labels of a dataset, in the type that a batch has them in.

        Raises:
            TutelageError: an integer was asked for and it is none.
        """
        axes = found.ndim if single else found.ndim - 1
        several = found.dtype == torch.bool and axes > 0
        if self.dtype == "float" or (self.dtype is None and (found.is_floating_point() or several)):
            return found.float() if axes else found.float().unsqueeze(-1)
        whole = found.long()
        if found.is_floating_point() and not torch.equal(whole.to(found.dtype), found):
            raise TutelageError(
                f"{where}: its label is {found.flatten()[0]:g}; data.label_dtype=int needs whole numbers"
            )
        return whole if self.ignore is None else whole.masked_fill(whole == self.ignore, NO_LABEL)


@dataclass(frozen=True)
class SampleLabels:
    """Labels that come with every sample, as transforms leave them: those of pixels and tokens.

    Args:
        reader: of one label.
        num_classes: integers are below it; None: floats.
        shape: of the label of an example that has none.
    """

    reader: LabelReader
    num_classes: int | None
    shape: tuple[int, ...] = ()

    def stack(self, labels: Sequence[Tensor | None], place: Callable[[int], str]) -> Tensor:
        """Returns the labels of a batch, those that are None without a label.

        Args:
            labels: one a row, or None.
            place: row → what errors call the sample.

        Raises:
            TutelageError: they have different shapes.
        """
        known = {row: label for row, label in enumerate(labels) if label is not None}
        like = torch.zeros(1, *self.shape, dtype=torch.float32 if self.num_classes is None else torch.long)
        if not known:
            return no_labels(len(labels), like)
        rows = [*known]
        found = stacked([{LABEL: label} for label in known.values()], lambda i: place(rows[i]))[LABEL]
        if len(rows) == len(labels):
            return found
        whole = no_labels(len(labels), found)
        whole[torch.tensor(rows)] = found
        return whole

    def check(self, labels: Tensor, place: Callable[[int], str]) -> None:
        """Refuses classes that there are not.

        Args:
            labels: [B, …].
            place: row → what errors call the sample.

        Raises:
            TutelageError: names the sample and the value.
        """
        if self.num_classes is None:
            bad, expected = labels.isinf(), "a finite number, or NaN where none is known"
        else:
            bad = ((labels < 0) & (labels != NO_LABEL)) | (labels >= self.num_classes)
            expected = (
                f"0 to {self.num_classes - 1}, or {NO_LABEL} where none counts (data.ignore_index: another number)"
            )
        if bad.any():
            row, *inside = bad.nonzero()[0].tolist()
            found, at = labels[row][tuple(inside)].item(), f" at {inside}" if inside else ""
            raise TutelageError(f"{place(row)}: its label is {found}{at}; expected {expected}")
