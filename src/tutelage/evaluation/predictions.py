"""Predictions of a network: the logits that all metrics are computed from."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.evaluation.saved_predictions import check
from tutelage.models.tapped import run
from tutelage.sources.ensemble import combined, scaled


@dataclass(frozen=True, eq=False)
class Predictions:
    """A network's logits on labelled examples, validated on construction.

    Args:
        logits: [N, C], finite.
        label: [N] integers in [0, C).
        key: [N] integers, keys of the examples.

    Raises:
        TutelageError: no example, shapes that differ, a label out of range or a logit that is not finite; of the last
            two the first example is named by its key.
    """

    logits: Tensor
    label: Tensor
    key: Tensor

    def __post_init__(self) -> None:
        check(self)

    @property
    def choice(self) -> Tensor:
        """Returns the classes of the highest logits, [N]; the first at ties."""
        return self.logits.argmax(1)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Context manager for eval mode; restores the mode of each submodule, as frozen parts may differ."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode


def predict(
    network: Callable[[Tensor], Tensor], loader: Iterable[dict[str, Tensor]], device: torch.device | str
) -> Predictions:
    """Runs ``network`` on every batch of ``loader``, without gradients.

    A module is in eval mode meanwhile (:func:`eval_mode`); the caller sets the mode of other callables.
    ``no_grad`` rather than ``inference_mode``, so that tensors that the network keeps stay usable in training.

    Args:
        network: maps a batch's input, or the fields that it reads, to logits [B, C]; already on ``device``.
        loader: batches with "input", "label" and "key".
        device: device of the inputs.

    Returns:
        The predictions as float32 on the CPU, in the loader's order.

    Raises:
        TutelageError: a batch lacks one of the three, the loader is empty, or the predictions are invalid.
    """
    with eval_mode(network) if isinstance(network, nn.Module) else nullcontext(), torch.no_grad():
        rows = [_row(network, batch, device) for batch in loader]
    if not rows:
        raise TutelageError("nothing to predict: the loader yields no batch")
    return Predictions(*map(torch.cat, zip(*rows, strict=True)))


def _row(
    network: Callable[[Tensor], Tensor], batch: dict[str, Tensor], device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor]:
    if missing := {"input", "label", "key"} - batch.keys():
        raise TutelageError(f"a batch to predict lacks {sorted(missing)}; it has {sorted(batch)}")
    fields = {name: value.to(device) for name, value in batch.items()}
    logits = run(network, fields) if isinstance(network, nn.Module) else network(fields["input"])
    return logits.float().cpu(), batch["label"].long().cpu(), batch["key"].long().cpu()


def combined_predictions(
    predictions: Sequence[Predictions], weights: Tensor | None = None, combine: str = "probability"
) -> Predictions:
    """Combines the predictions of several networks on the same examples.

    Args:
        predictions: predictions of each network, in the same order of examples.
        weights: one per network; None: equal ones.
        combine: as for :class:`~tutelage.sources.ensemble.Ensemble`.
    """
    logits = torch.stack([one.logits.double() for one in predictions])
    shares = scaled(None, len(predictions)) if weights is None else weights
    return replace(predictions[0], logits=combined(logits, shares, combine).float())
