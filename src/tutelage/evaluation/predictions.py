"""What a network answered: the logits that every figure is computed from."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError


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
        shape = tuple(self.logits.shape)
        if len(shape) != 2 or 0 in shape or self.label.shape != shape[:1] or self.key.shape != shape[:1]:
            raise TutelageError(
                "predictions are logits [N, C], label [N] and key [N] with N and C at least 1; found "
                f"{list(shape)}, {list(self.label.shape)} and {list(self.key.shape)}"
            )
        if not (finite := self.logits.isfinite()).all():
            row, column = (~finite).nonzero()[0].tolist()
            raise TutelageError(
                f"example of key {int(self.key[row])}: expected finite logits, found {float(self.logits[row, column])} "
                f"for class {column}; {int((~finite.all(1)).sum())} of {shape[0]} examples have such logits"
            )
        outside = (self.label < 0) | (self.label >= shape[1])
        if outside.any():
            row = int(outside.int().argmax())
            raise TutelageError(
                f"example of key {int(self.key[row])}: expected a label in [0, {shape[1]}), found "
                f"{int(self.label[row])}; {int(outside.sum())} of {shape[0]} examples have such labels"
            )

    @property
    def choice(self) -> Tensor:
        """[N] the class of the highest logit; of equal ones the first."""
        return self.logits.argmax(1)


def shared(a: Predictions, b: Predictions) -> tuple[Predictions, Predictions] | None:
    """The examples that both answered, in the order of their keys; None where there is none.

    A key comes at most once in each.
    """
    both = a.key[torch.isin(a.key, b.key)].sort().values
    if not len(both):
        return None
    return _of_keys(a, both), _of_keys(b, both)


def _of_keys(p: Predictions, keys: Tensor) -> Predictions:
    known, order = p.key.sort()
    rows = order[torch.searchsorted(known, keys)]
    return Predictions(p.logits[rows], p.label[rows], p.key[rows])


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode meanwhile; then each submodule gets its own mode back (a frozen part may differ from the rest)."""
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
        network: maps a batch's input to logits [B, C]; already on ``device``.
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
    logits = network(batch["input"].to(device))
    return logits.float().cpu(), batch["label"].long().cpu(), batch["key"].long().cpu()
