"""Labels of any shape: what ``logits[i]`` should say of example i.

| labels | of |
|---|---|
| [N] integers | one class an example |
| [N, H, W], [N, L] integers | a class for each pixel or token; ``NO_LABEL`` where none counts |
| [N, K] floats | K answers of 0 or 1, or K numbers; NaN where one is not known |

An example without a label has ``NO_LABEL`` or NaN everywhere.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL


def is_class(labels: Tensor) -> bool:
    """Checks whether an example has one class."""
    return labels.ndim == 1 and not labels.is_floating_point()


def of_pixels(labels: Tensor) -> bool:
    """Checks whether labels are a class for each pixel."""
    return labels.ndim == 3 and not labels.is_floating_point()


def has_label(labels: Tensor) -> Tensor:
    """Returns which of [N, …] labels are known, at least in part: [N] bools."""
    known = ~labels.isnan() if labels.is_floating_point() else labels != NO_LABEL
    return known if known.ndim == 1 else known.flatten(1).any(1)


def no_labels(count: int, like: Tensor) -> Tensor:
    """Returns ``count`` labels of examples that have none, in the type and shape of the labels ``like``."""
    return like.new_full((count, *like.shape[1:]), float("nan") if like.is_floating_point() else NO_LABEL)


def describe(labels: Tensor) -> str:
    """Returns words for messages, such as "[3] floats an example"."""
    if labels.is_floating_point():
        return f"{list(labels.shape[1:])} floats an example"
    axes = labels.ndim - 1
    return f"integers with {axes} ax{'i' if axes == 1 else 'e'}s an example" if axes else "one class an example"


def require_class(key: str, labels: Tensor) -> None:
    """Refuses an option that needs the class of every example.

    Raises:
        TutelageError: labels are not one class an example.
    """
    if not is_class(labels):
        raise TutelageError(f"{key} needs labels that are one class an example; these are {describe(labels)}")


def checked_labels(
    name: str,
    labels: Tensor,
    num_classes: int | None,
    num_outputs: int,
    place: Callable[[int], str] | None = None,
) -> Tensor:
    """Returns labels as int64 or float32, [N] floats as [N, 1].

    Args:
        name: what errors call the examples.
        labels: of any of the shapes above.
        num_classes: integers must be below it.
        num_outputs: how many numbers an example must have where labels are floats.
        place: index → what errors call the example; None: by its index.

    Raises:
        TutelageError: they are none of these; names the first wrong example, what was expected and what was found.
    """
    place = place or (lambda row: f"{name}: the example at index {row}")
    if labels.dtype == torch.bool or (labels.is_floating_point() and num_classes is not None):
        raise TutelageError(f"{name}: labels must be integers; found {labels.dtype}")
    if labels.is_floating_point():
        return _checked_numbers(name, labels.float(), num_outputs, place)
    if num_classes is None:
        raise TutelageError(
            f"{name}: labels are {describe(labels)}, which need data.num_classes=…; answers of 0 or 1 and numbers "
            "to be predicted are floats"
        )
    wide = labels.long()
    allowed = (wide >= 0) & (wide < num_classes)
    if not is_class(labels):
        allowed |= wide == NO_LABEL
    if not allowed.all():
        first, *inside = (~allowed).nonzero()[0].tolist()
        raise TutelageError(
            f"{place(first)}: its label{f' at {inside}' if inside else ''} is {int(wide[first][tuple(inside)])}; "
            f"expected 0 to {num_classes - 1}{f', or {NO_LABEL} where none counts' if inside else ''} "
            f"({int((~allowed).sum())} of {allowed.numel()} labels are outside)"
        )
    if len(bare := (~has_label(wide)).nonzero()):
        raise TutelageError(f"{place(int(bare[0]))} has no label ({len(bare)} have none)")
    return wide


def _checked_numbers(name: str, labels: Tensor, num_outputs: int, place: Callable[[int], str]) -> Tensor:
    found = labels[:, None] if labels.ndim == 1 else labels
    if found.ndim != 2 or found.shape[1] != num_outputs:
        raise TutelageError(
            f"{name}: labels of floats must be {num_outputs} an example (data.num_outputs); found {list(labels.shape)}"
        )
    if len(bad := found.isinf().nonzero()):
        row, column = bad[0].tolist()
        raise TutelageError(f"{place(row)}: number {column} of its label is {float(found[row, column])}")
    if len(bare := (~has_label(found)).nonzero()):
        raise TutelageError(f"{place(int(bare[0]))}: its label is NaN everywhere ({len(bare)} of {len(found)} are)")
    return found
