"""Predictions of a network: the logits that every figure is computed from."""

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
    """A network's logits on labelled examples, valid by construction: every figure may rely on it.

    Args:
        logits: [N, C], finite.
        label: [N] integers in [0, C).
        key: [N] integers: which example.

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
        """Returns [N], the class of the highest logit; of equal ones the first."""
        return self.logits.argmax(1)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Context manager for eval mode; on exit each submodule gets its own mode back (a frozen part may differ)."""
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

    A module is in eval mode meanwhile (:func:`eval_mode`); of another callable, the mode is the caller's business.
    ``no_grad`` rather than ``inference_mode``: what the network keeps of the last batch stays usable in training.

    Args:
        network: maps a batch's input, or the fields that it reads, to logits [B, C]; already on ``device``.
        loader: batches with "input", "label" and "key".
        device: where the inputs go.

    Returns:
        The predictions as float32 on the CPU, in the loader's order.

    Raises:
        TutelageError: a batch lacks one of the three, the loader is empty, or the predictions are not valid.
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
    """Returns the predictions of several networks on the same examples as those of one.

    Args:
        predictions: of each network, in the same order of examples.
        weights: one a network; None: equal ones.
        combine: as of :class:`~tutelage.sources.ensemble.Ensemble`.
    """
    logits = torch.stack([one.logits.double() for one in predictions])
    shares = scaled(None, len(predictions)) if weights is None else weights
    return replace(predictions[0], logits=combined(logits, shares, combine).float())
