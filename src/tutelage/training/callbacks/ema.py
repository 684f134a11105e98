"""Replaces the weights by their exponential moving average."""

import math
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from tutelage.errors import TutelageError
from tutelage.sources.ema_teacher import EMATeacher
from tutelage.training.callbacks.freeze import FollowsLength
from tutelage.training.fast_loop import Quiet
from tutelage.training.fsdp import Sharded
from tutelage.training.module import SupervisedModule

OTHERS = (StochasticWeightAveraging, WeightAveraging)  # Lightning's: they swap weights without Tutelage's files knowing


class RisingAverage(EMATeacher):
    """An average whose decay at step t of T, from 1, is d·(1 − exp(−β·t/T)).

    Args:
        decay: d, in [0, 1).
        beta: β, above 0.
        steps: T.

    Raises:
        TutelageError: ``decay`` is out of range.
    """

    def __init__(self, decay: float, beta: float, steps: int):
        super().__init__(decay)
        self.beta, self.length = beta, steps

    def decay_at(self, step: int) -> float:
        """Returns the decay after optimizer step ``step``, from 1."""
        return self.decay * -math.expm1(-self.beta * step / self.length)


class Ema(Quiet, FollowsLength):
    """Keeps θ' ← d_t·θ' + (1 − d_t)·θ, with d_t = min(decay, (1 + t)/(ramp + t)) after optimizer step t, t from 0.

    With ``beta`` it is d_t = decay·(1 − exp(−beta·(t + 1)/T)) of T steps in all, as in SuperGradients: 15 gives
    0.78·decay after a tenth of the training and 0.9994·decay after half of it.

    The average is what is validated, chosen as best, exported (``last``, ``best``, those of each epoch) and what
    teaches; the trained weights are kept separately, the last ones in ``raw.safetensors``. The average
    belongs to the training's state, so a run that was killed goes on with the same bits.

    The learning network alone is averaged: no teacher, no other source, no loss. Buffers: floating ones (BatchNorm's
    mean and variance) are averaged like weights, integers (its count of batches) are copied. Polyak & Juditsky 1992;
    the ramp is TensorFlow's ``ExponentialMovingAverage(num_updates)``.

    Args:
        decay: the greatest d, in [0, 1).
        ramp: how long the first weights count, at least 1; 10 gives 0.1 at the first step, 0.92 at the hundredth; 1
            gives ``decay`` from the start. None with ``beta``.
        beta: how fast the decay rises over the training, above 0; None: by ``ramp``.

    Raises:
        TutelageError: an argument is out of range, or there are both of ``ramp`` and ``beta``, or neither.
    """

    def __init__(self, decay: float = 0.999, ramp: float | None = 10.0, beta: float | None = None):
        if not 0.0 <= decay < 1.0:
            raise TutelageError(f"callbacks.ema.decay must be in [0, 1); found {decay}")
        if ramp is not None and not ramp >= 1.0:
            raise TutelageError(f"callbacks.ema.ramp must be at least 1; found {ramp}")
        if beta is not None and not 0.0 < beta < math.inf:
            raise TutelageError(f"callbacks.ema.beta must be above 0; found {beta}")
        if (ramp is None) == (beta is None):
            raise TutelageError(f"callbacks.ema: one of ramp and beta is null; found ramp={ramp} and beta={beta}")
        self.decay, self.ramp, self.beta = decay, ramp, beta
        self._last_step = 0

    @property
    def follows_length(self) -> bool:  # type: ignore[override]
        """Returns whether the decay at a step follows from the length."""
        return self.beta is not None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gives the module an average, before a state to go on from is loaded into both.

        Raises:
            TutelageError: the network is in shards.
        """
        if isinstance(trainer.strategy, Sharded):
            raise TutelageError("callbacks.ema: not supported for sharded networks (trainer=fsdp)")
        learner = cast(SupervisedModule, pl_module)
        if self.beta is None:
            learner.average = EMATeacher(self.decay, cast(float, self.ramp))
        else:
            learner.average = RisingAverage(self.decay, self.beta, learner.course("step", trainer))
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
