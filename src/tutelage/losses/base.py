"""The hooks and attributes that a loss may have beside its value, each with a default that does nothing."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

HOOKS = ("bind", "prepare", "on_epoch_start")
_FACTS = ("least_rows", "takes_unlabelled", "same_on_ranks", "fixed_graph")


class Loss(nn.Module):
    """Base of a loss that needs more than the tensors of a batch.

    A loss that is a function of these alone needs no base: any ``nn.Module`` will do. Derive from this one to override
    a hook or one of the attributes; a part of a loss (a module within it) may do so as well.

    Attributes:
        least_rows: the least number of examples in a batch, 1 or more. A smaller ``data.batch_size`` is refused.
        takes_unlabelled: whether ``forward`` wants the rows of a batch that have no label, too. Their label is
            ``tutelage.types.NO_LABEL``. Otherwise a term that reads ``batch.label`` gives it the labelled rows alone.
        same_on_ranks: whether the buffers stay equal on all ranks by themselves, so that none is sent before a step.
        fixed_graph: whether the same parameters have a gradient in every epoch although the loss overrides
            ``on_epoch_start``; a loss that does not is taken to have such a graph.
    """

    least_rows: int = 1
    takes_unlabelled: bool = False
    same_on_ranks: bool = False
    fixed_graph: bool = False

    def bind(self, keys: Tensor, labels: Tensor) -> None:
        """Called once before the first step with the examples that are trained on, to keep something for each.

        Args:
            keys: [n] int64, as ``batch.key`` will have them.
            labels: [n] int64, ``NO_LABEL`` for none.
        """

    def prepare(self, examples: Callable[[int], Iterable[Mapping[str, Any]]]) -> None:
        """Called when training starts, once shapes and devices are known, to learn from the teacher beforehand.

        Called again when a run is resumed, after its state was loaded. Afterwards rank 0's state goes to all ranks.

        Args:
            examples: epoch → the term's ``targets`` by argument name, batch by batch over the training images.
        """

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Called before each epoch, and after a resumption within one.

        Args:
            epoch: counted from 0.
            epochs: how many there will be.
        """


class _Plain(Loss):
    """A module without the base, seen through the same names: what it defines of them is its own."""

    def __init__(self, module: nn.Module):
        super().__init__()
        for name in _FACTS:
            object.__setattr__(self, name, getattr(module, name, getattr(Loss, name)))
        for name in hooks(module):
            object.__setattr__(self, name, getattr(module, name))


def contract(module: nn.Module) -> Loss:
    """Returns what a training may ask of any module: itself if it is a :class:`Loss`.

    For another one, torch's or a user's, returns a view that does nothing but what the module defines by these names.
    """
    return module if isinstance(module, Loss) else _Plain(module)


def hooks(module: nn.Module) -> frozenset[str]:
    """Returns the names of the hooks that a module implements, of :class:`Loss` or by the same names."""
    if isinstance(module, Loss):
        return frozenset(name for name in HOOKS if getattr(type(module), name) is not getattr(Loss, name))
    found = {name: getattr(module, name, None) for name in HOOKS}  # a child of this name is none
    return frozenset(name for name, hook in found.items() if callable(hook) and not isinstance(hook, nn.Module))
