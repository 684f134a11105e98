"""Averages the weights of the validations that were best."""

import copy
import json
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn

from tutelage.checkpoints.weights import read_state, save_network
from tutelage.compat.torch import BatchNorm
from tutelage.data.blank import BlankSet
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.models.quantised.network import Quantised
from tutelage.models.tapped import run
from tutelage.runtime.distributed import broadcast, is_main
from tutelage.training.callbacks.best import BestLostError, finite_figure, monitored
from tutelage.training.callbacks.prune import Prune
from tutelage.training.fsdp import Sharded
from tutelage.training.module import SupervisedModule
from tutelage.types import Batch

FOLDER = "averaged"
_KEY = "callbacks.average_best"


class AverageBest(L.Callback):
    """Writes ``average.safetensors``: θ = Σ_i θ_i / n of the n validations with the best figure, ties to the earlier.

    Their weights are those that were validated and written (with ``callbacks=ema`` the moving average's), kept as
    ``averaged/<step>.safetensors``: n files, one more while one is replaced. They are averaged once, at the end of the
    training, in double precision; statistics of batch normalisation do not average and are estimated anew on training
    images, augmented as they were, in eval mode but for these layers. With fewer than n validations all are averaged.

    Averaging of checkpoints as in SuperGradients' ``average_best_models``, which averages the statistics, too.

    Args:
        n: how many, at least 1.
        examples: of training, from which statistics are estimated, rounded up to whole batches, and at most an epoch.
        monitor: the figure to go by; None: the headline of the task.
        mode: ``max`` or ``min``; None: as the task's figures have it.

    Raises:
        TutelageError: an argument is out of range.
    """

    def __init__(self, n: int = 10, examples: int = 10_000, monitor: str | None = None, mode: str | None = None):
        for name, value in (("n", n), ("examples", examples)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TutelageError(f"callbacks.average_best.{name} must be at least 1, and whole; found {value}")
        self.n, self.examples = n, examples
        self.given = monitor, mode
        self.kept: list[tuple[float, int, int]] = []  # figure, step and epoch, the best first

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Takes what is not given from the task.

        Raises:
            TutelageError: an average of these weights would not be a network of their kind.
        """
        learner = cast(SupervisedModule, pl_module)
        self.monitor, self.mode = monitored(_KEY, *self.given, learner.task)
        if isinstance(trainer.strategy, Sharded):
            raise TutelageError("callbacks.average_best: not supported for sharded networks (trainer=fsdp)")
        if any(isinstance(one, Prune) for one in trainer.callbacks):  # type: ignore[attr-defined]
            raise TutelageError(
                "callbacks.average_best: an average of weights does not keep the zeros of callbacks.prune"
            )
        if isinstance(learner.student.net.net, Quantised):
            raise TutelageError("callbacks.average_best: an average of rounded weights is not rounded (quantise)")
        blank = isinstance(trainer.datamodule.splits["train"], BlankSet)  # type: ignore[attr-defined]
        if blank and _normalisations(learner.written):
            raise TutelageError(
                "callbacks.average_best: a student whose images are made while it learns has no training images for "
                "its statistics of batch normalisation"
            )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps the weights if they are among the n best, and drops those that no longer are."""
        learner, step = cast(SupervisedModule, pl_module), trainer.global_step
        value = None if trainer.sanity_checking else finite_figure(_KEY, trainer, learner, self.monitor)
        if value is None:
            return
        sign = -1.0 if self.mode == "max" else 1.0
        best = sorted([*self.kept, (value, step, trainer.current_epoch)], key=lambda one: (sign * one[0], one[1]))
        self.kept, dropped = best[: self.n], [one for _, one, _ in best[self.n :]]
        folder = Path(trainer.default_root_dir) / FOLDER
        if step not in dropped:
            header = {**learner.about, "epoch": trainer.current_epoch}
            save_network(learner.written, folder / f"{step}.safetensors", header)
        if is_main():
            names = {f"{one}.safetensors" for _, one, _ in self.kept}
            for old in [path for path in folder.glob("*.safetensors") if path.name not in names]:
                old.unlink()

    def check(self, folder: Path) -> None:
        """Checks, on every rank alike, that the kept weights still exist.

        Args:
            folder: of the training.

        Raises:
            BestLostError: they do not, or are damaged.
        """
        if lost := broadcast(self._lost(folder)):
            raise BestLostError(f"weights to average are lost ({lost})")

    def _lost(self, folder: Path) -> str:
        try:
            for file in self._files(folder) if is_main() else ():
                read_state(file)
        except TutelageError as error:
            return str(error)
        return ""

    def _files(self, folder: Path) -> list[Path]:
        return [folder / FOLDER / f"{step}.safetensors" for _, step, _ in self.kept]

    def write(self, learner: SupervisedModule, data: Data, folder: Path, device: torch.device) -> None:
        """Writes the average into the folder of the training.

        Args:
            learner: has trained.
            data: loaded.
            folder: of the kept weights.
            device: where statistics are estimated.
        """
        net = copy.deepcopy(learner.written)
        net.load_state_dict(mean_of(read_state(file) for file in self._files(folder)))
        epoch = max(one for _, _, one in self.kept)
        batches = math.ceil(self.examples / data.batch_size)
        estimate_statistics(net.to(device, torch.float32), islice(data.unaugmented_train_loader(epoch), batches))
        averaged = [{"epoch": one, self.monitor: value} for value, _, one in self.kept]
        header = {**learner.about, "epoch": epoch}
        save_network(net, folder / "average.safetensors", header, averaged=json.dumps(averaged))

    def state_dict(self) -> dict[str, Any]:
        """Returns the figures, steps and epochs of the kept weights."""
        return {"kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores them; a later validation writes its weights again, to the same bits."""
        self.kept = [(value, step, epoch) for value, step, epoch in state_dict["kept"]]


def mean_of(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the mean of several states of a network: of floats in float64, of others those of the first state.

    Args:
        states: at least one, with the same names and shapes, read one after the other.
    """
    total: dict[str, Tensor] = {}
    first: Mapping[str, Tensor] = {}
    count = 0
    for state in states:
        first, count = first or state, count + 1
        for name, value in state.items():
            if value.is_floating_point():
                total[name] = total[name] + value.double() if name in total else value.double()
    return {name: (total[name] / count).to(value.dtype) if name in total else value for name, value in first.items()}


def _normalisations(net: nn.Module) -> list[BatchNorm]:
    return [one for one in net.modules() if isinstance(one, BatchNorm) and one.running_mean is not None]


@torch.no_grad()
def estimate_statistics(net: nn.Module, batches: Iterable[Batch]) -> None:
    """Sets the statistics of batch normalisation to the mean of those of batches; all other layers are in eval mode.

    Args:
        net: ends in eval mode.
        batches: where the network is.
    """
    net.eval()
    if not (layers := _normalisations(net)):
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean
        layer.train()
    device = next(net.parameters()).device
    for batch in batches:
        run(net, {name: value.to(device) for name, value in batch.items()})
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    net.eval()
