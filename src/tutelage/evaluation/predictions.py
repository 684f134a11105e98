"""Runs networks on labelled examples: what every figure is computed from."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from tutelage.data.order import EpochLoader
from tutelage.errors import TutelageError
from tutelage.models.tapped import run
from tutelage.sources.ensemble import combined, scaled
from tutelage.tasks.base import Task, check_number, update
from tutelage.tasks.classification import Classification
from tutelage.tasks.predictions import check
from tutelage.types import Batch, Signals

log = logging.getLogger(__name__)

Network = Callable[[Any], Tensor]  # of a batch's input, or of the fields that it reads


@dataclass(frozen=True, eq=False)
class Predictions:
    """A network's logits on labelled examples, validated on construction.

    Args:
        logits: [N, C], finite.
        label: [N] integers in [0, C); or [N, C] floats, NaN where one is not known.
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
    def fields(self) -> dict[str, Tensor]:
        """Returns all three by name."""
        return {"logits": self.logits, "label": self.label, "key": self.key}

    @property
    def choice(self) -> Tensor:
        """Returns the classes of the highest logits, [N]; the first at ties."""
        return self.logits.argmax(1)


@dataclass(frozen=True, eq=False)
class Totals:
    """Totals of each example, of a task that keeps no logits (:class:`~tutelage.tasks.dense.Dense`).

    Args:
        fields: name → [N] or [N, C] on the CPU; ``key`` [N] is among them.
    """

    fields: Mapping[str, Tensor]

    @property
    def key(self) -> Tensor:
        """Returns [N] integers: which example."""
        return self.fields["key"]


Stored = Predictions | Totals


def stored(fields: Mapping[str, Tensor]) -> Stored:
    """Returns what a task stores as predictions if these are its fields, else as totals."""
    return Predictions(**fields) if fields.keys() == {"logits", "label", "key"} else Totals(fields)


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


def predict(network: Network, loader: Iterable[Batch], device: torch.device | str) -> Predictions:
    """Runs ``network`` on every batch of ``loader``, without gradients; see :func:`answers`.

    Returns:
        The predictions as float32 on the CPU, in the order of the loader, or of its dataset.

    Raises:
        TutelageError: a batch lacks a field, the loader is empty, or the predictions are not valid.
    """
    found = measure(network, loader, device, Classification())[0]
    assert isinstance(found, Predictions)
    return found


def measure(
    network: Network,
    loader: Iterable[Batch],
    device: torch.device | str,
    task: Task,
    teacher: Callable[[Batch], Signals] | None = None,
) -> tuple[Stored, dict[str, float]]:
    """Runs ``network`` on every batch of ``loader``, without gradients; see :func:`answers`.

    Args:
        network: already on ``device``.
        loader: batches with "input", "label" and "key".
        device: where the inputs go.
        task: says what is stored of each example, and has metrics of the user's own.
        teacher: on the same device; for tasks that can't compare stored predictions.

    Returns:
        What the task stores, on the CPU in the order of the loader, or of its dataset; and the values of the user's
        metrics, by name.

    Raises:
        TutelageError: as of :func:`predict`; or a metric of the user's own returns no single number.
    """
    parts: list[dict[str, Tensor]] = []
    metrics = {name: metric.clone().to(device) for name, metric in task.metrics.items()}
    for logits, batch in answers(network, loader, device):
        theirs = None if teacher is None else teacher(batch)["logits"].float()
        found = task.store(logits, batch["label"], theirs)
        parts.append({name: field.cpu() for name, field in found.items()} | {"key": batch["key"].long().cpu()})
        update(metrics.values(), *task.rows(logits, batch["label"]))
    if not parts:
        raise TutelageError("nothing to predict: the loader yields no batch")
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if isinstance(loader, EpochLoader):
        whole = {name: loader.restored(field) for name, field in whole.items()}
    return stored(whole), values_of(metrics)


def answers(
    network: Network, loader: Iterable[Batch], device: torch.device | str
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Yields the float32 logits of each batch, on ``device``, and the batch there.

    A module is in eval mode meanwhile (:func:`eval_mode`); of another callable, the mode is the caller's business.
    ``no_grad`` rather than ``inference_mode``: what the network keeps of the last batch stays usable in training.
    """
    with eval_mode(network) if isinstance(network, nn.Module) else nullcontext(), torch.no_grad():
        for batch in loader:
            if missing := {"input", "label", "key"} - batch.keys():
                raise TutelageError(f"a batch to predict lacks {sorted(missing)}; it has {sorted(batch)}")
            fields = {name: value.to(device) for name, value in batch.items()}
            if not fields["label"].is_floating_point():
                fields["label"] = fields["label"].long()
            logits = run(network, fields) if isinstance(network, nn.Module) else network(fields["input"])
            yield logits.float(), fields


def values_of(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Returns the values of torchmetrics; one that is not finite is left out with a warning.

    Raises:
        TutelageError: a metric returns no single number.
    """
    found = {}
    for name, metric in metrics.items():
        value = metric.compute()
        check_number(name, value)
        if not bool(value.isfinite()):
            log.warning("task.metrics.%s is %s and left out", name, float(value))
            continue
        found[name] = float(value)
    return found


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
