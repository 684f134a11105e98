"""Defines the optional hooks and attributes of a loss, each with a default that does nothing."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

HOOKS = ("bind", "prepare", "on_epoch_start")
_FACTS = ("least_rows", "takes_unlabelled", "counts_over_ranks", "same_on_ranks", "fixed_graph", "over_classes")


class Loss(nn.Module):
    """Base of a loss that needs more than the tensors of a batch.

    A loss that depends on these alone can be any ``nn.Module``. Derive from this class to override a hook or an
    attribute; a submodule of a loss may do so as well.

    Attributes:
        least_rows: the least number of examples in a batch, 1 or more. A smaller ``data.batch_size`` is refused.
        takes_unlabelled: whether ``forward`` also receives the unlabelled rows of a batch, whose label is
            ``tutelage.types.NO_LABEL``. Otherwise a term that reads ``batch.label`` receives the labelled rows only.
        counts_over_ranks: whether ``forward`` divides by a count over all ranks
            (:func:`~tutelage.losses.ranks.mean_over_ranks`, :func:`~tutelage.losses.masks.masked_mean`). A term with a
            mask then gives it the chosen rows, even if there is none, and does not weigh them by their number.
        same_on_ranks: whether the buffers stay equal on all ranks without being broadcast before each step.
        fixed_graph: whether the same parameters have a gradient in every epoch although the loss overrides
            ``on_epoch_start``; this is assumed of a loss that does not override it.
        over_classes: whether it takes the last axis of logits as classes, by softmax or as one of them; refused for
            tasks whose outputs are no classes.
    """

    least_rows: int = 1
    takes_unlabelled: bool = False
    counts_over_ranks: bool = False
    same_on_ranks: bool = False
    fixed_graph: bool = False
    over_classes: bool = False

    def bind(self, keys: Tensor, labels: Tensor) -> None:
        """Receives the training examples, once, before the first step, so that the loss can store something for each.

        Args:
            keys: [n] int64, as ``batch.key`` will have them.
            labels: [n] int64, ``NO_LABEL`` for none.
        """

    def prepare(self, examples: Callable[[int], Iterable[Mapping[str, Any]]]) -> None:
        """Learns from the teacher when training starts, once shapes and devices are known.

        Called again when a run is resumed, after its state was loaded. Rank 0's state is then sent to all ranks.

        Args:
            examples: epoch → the term's ``targets`` by argument name, batch by batch over the training images.
        """

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Adapts the loss to the epoch; called before each epoch and when a run is resumed within one.

        Args:
            epoch: counted from 0.
            epochs: number of epochs.
        """


class _Plain(Loss):
    """Wraps a module that does not derive from :class:`Loss`; hooks and attributes that it defines are used."""

    def __init__(self, module: nn.Module):
        super().__init__()
        for name in _FACTS:
            object.__setattr__(self, name, getattr(module, name, getattr(Loss, name)))
        for name in hooks(module):
            object.__setattr__(self, name, getattr(module, name))


def contract(module: nn.Module) -> Loss:
    """Returns ``module`` if it is a :class:`Loss`, else a wrapper with its hooks and attributes or the defaults."""
    return module if isinstance(module, Loss) else _Plain(module)


def hooks(module: nn.Module) -> frozenset[str]:
    """Returns the names of the hooks that a module implements."""
    if isinstance(module, Loss):
        return frozenset(name for name in HOOKS if getattr(type(module), name) is not getattr(Loss, name))
    found = {name: getattr(module, name, None) for name in HOOKS}  # a submodule of this name is no hook
    return frozenset(name for name, hook in found.items() if callable(hook) and not isinstance(hook, nn.Module))
