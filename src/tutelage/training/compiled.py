"""Networks through ``torch.compile``, for the time of a training."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from tutelage.compat.torch import undo_compile
from tutelage.errors import TutelageError
from tutelage.models.quantised.network import Quantised
from tutelage.sources.base import Source

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def check_compile(option: object, stage: str) -> None:
    """Refuses what is no choice.

    Raises:
        TutelageError: names the key and the choices.
    """
    if not isinstance(option, bool) and option not in MODES:
        raise TutelageError(f"stages.{stage}.compile must be false, true or one of {list(MODES)}; found {option!r}")


@contextmanager
def compiled(learner: nn.Module, option: bool | str) -> Iterator[None]:
    """Context manager in which every network of ``learner``, its teachers included, runs compiled.

    ``Module.compile`` leaves the names of weights as they are, and taps, which are hooked before, are read as ever.
    Each batch size is compiled for itself: there are few (training, validation, the dry pass).

    Args:
        learner: the module that is trained; its networks are its sources'.
        option: false, true, or a mode of ``torch.compile``.

    Raises:
        TutelageError: a network is quantised.
    """
    found = (part.network() for part in learner.modules() if isinstance(part, Source))  # a frozen one is no child
    nets = [tapped.net for tapped in found if tapped is not None] if option is not False else []
    if any(isinstance(net, Quantised) for net in nets):
        raise TutelageError("compile: torch.compile does not know how a quantised network rounds to integers")
    for net in nets:
        net.compile(mode="default" if option is True else option, dynamic=False)
    try:
        yield
    finally:
        for net in nets:
            undo_compile(net)  # what follows counts and evaluates it
