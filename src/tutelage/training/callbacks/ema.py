"""Replaces the weights by their exponential moving average."""

from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from tutelage.errors import TutelageError
from tutelage.sources.ema_teacher import EMATeacher
from tutelage.training.fast_loop import Quiet
from tutelage.training.fsdp import Sharded
from tutelage.training.module import SupervisedModule

OTHERS = (StochasticWeightAveraging, WeightAveraging)  # Lightning's: they swap weights without Tutelage's files knowing


class Ema(Quiet):
    """Keeps θ' ← d_t·θ' + (1 − d_t)·θ, with d_t = min(decay, (1 + t)/(ramp + t)) after optimizer step t, t from 0.

    The average is what is validated, chosen as best, exported (``last``, ``best``, those of each epoch) and what
    teaches; the trained weights are kept separately, the last ones in ``raw.safetensors``. The average
    belongs to the training's state, so a run that was killed goes on with the same bits.

    The learning network alone is averaged: no teacher, no other source, no loss. Buffers: floating ones (BatchNorm's
    mean and variance) are averaged like weights, integers (its count of batches) are copied. Polyak & Juditsky 1992;
    the ramp is TensorFlow's ``ExponentialMovingAverage(num_updates)``.

    Args:
        decay: the greatest d, in [0, 1).
        ramp: how long the first weights count, at least 1; 10 gives 0.1 at the first step, 0.92 at the hundredth; 1
            gives ``decay`` from the start.

    Raises:
        TutelageError: ``decay`` or ``ramp`` is out of range.
    """

    def __init__(self, decay: float = 0.999, ramp: float = 10.0):
        if not 0.0 <= decay < 1.0:
            raise TutelageError(f"callbacks.ema.decay must be in [0, 1); found {decay}")
        if not ramp >= 1.0:
            raise TutelageError(f"callbacks.ema.ramp must be at least 1; found {ramp}")
        self.decay, self.ramp = decay, ramp
        self._last_step = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gives the module an average, before a state to go on from is loaded into both.

        Raises:
            TutelageError: the network is in shards.
        """
        if isinstance(trainer.strategy, Sharded):
            raise TutelageError("callbacks.ema: not supported for sharded networks (trainer=fsdp)")
        learner = cast(SupervisedModule, pl_module)
        learner.average = EMATeacher(self.decay, self.ramp)
        learner.average.attach((), {"student": learner.student})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restores the average's step counter on resume, so that the last step is not averaged twice."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follows once per optimizer step, however many batches a step accumulates."""
        average = cast(SupervisedModule, pl_module).average
        if average is not None and trainer.global_step != self._last_step:
            self._last_step = trainer.global_step
            average.after_step()


def refuse_others(target: Any, key: str) -> None:
    """Refuses Lightning's own callbacks for averages.

    Raises:
        TutelageError: ``target`` is one of them.
    """
    if isinstance(target, type) and issubclass(target, OTHERS):
        raise TutelageError(
            f"{key}: with {target.__name__} the best and exported weights would not be the validated ones; use "
            "callbacks=ema"
        )
