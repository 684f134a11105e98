"""Lightning's training loop without its bookkeeping in steps that are neither logged nor validated.

Lightning spends about 0.7 ms a step on hooks, profilers, metric collections and closures, more than a small student's
forward, backward and update together. Between two steps that are logged none of that has an effect.
"""

import logging
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor

from tutelage.compat.lightning import DataFetcher, EpochLoop, PrefetchDataFetcher, detects_anomaly, validates_by_time
from tutelage.training.graphs import GraphedStep, why_not

log = logging.getLogger(__name__)

# What a lean step leaves out; who overrides one of these gets Lightning's own steps.
_LEFT_OUT = (
    "on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step",
    "on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer",
    "optimizer_zero_grad", "optimizer_step", "configure_gradient_clipping", "backward", "lr_scheduler_step",
)  # fmt: skip
_AROUND = ("on_train_batch_start", "on_train_batch_end")


class Quiet(L.Callback):
    """A callback whose ``on_train_batch_start`` and ``on_train_batch_end`` log nothing: lean steps may call them."""


class LeanEpochLoop(EpochLoop):
    """Lightning's loop over the batches of an epoch, with short cuts that leave every result as it is.

    A lean step is the same arithmetic in the same order: batch, ``on_train_batch_start``, ``training_step``,
    ``zero_grad``, ``backward``, the optimizer's step, the schedule's, ``on_train_batch_end``; ``global_step`` and all
    counters that a checkpoint holds go on as ever. Lightning's own steps stay the first and the last of an epoch, the
    first after a resume, each that is logged, that validation follows or that ends the training; and all of them under
    several devices, accumulation, clipping, a profiler, ``detect_anomaly``, and with a callback or module
    that overrides a hook which a lean step leaves out (or, but for :class:`Quiet` ones, one around the batch).
    """

    graph = "never"  # or auto: lean steps are replayed as a CUDA graph, where they can be (tutelage.training.graphs)
    _graphed: GraphedStep | None = None

    def on_run_start(self, data_fetcher: DataFetcher) -> None:
        """Finds out, once an epoch, whether steps may be lean."""
        super().on_run_start(data_fetcher)
        self._lean = isinstance(data_fetcher, PrefetchDataFetcher) and self._is_plain()
        if self._graphed is not None:
            self._graphed.on_epoch_start()
        elif self.graph == "auto":
            self._graphed = self._make_graphed()
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        self._before, self._after = ([one for one in callbacks if _overrides(one, hook)] for hook in _AROUND)

    def _is_plain(self) -> bool:
        trainer = cast(Any, self.trainer)
        precision = trainer.precision_plugin
        known = type(precision) in (Precision, MixedPrecision) and type(trainer.strategy) is SingleDeviceStrategy
        unusual = trainer.accumulate_grad_batches > 1 or trainer.gradient_clip_val or detects_anomaly(trainer)
        timed = validates_by_time(trainer) or trainer.num_training_batches == float("inf")
        plateau = any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)
        everyone = [trainer.lightning_module, trainer.datamodule, *trainer.callbacks]
        hooked = any(_overrides(one, hook) for one in everyone if one for hook in _LEFT_OUT)
        loud = any(_overrides(one, hook) for one in trainer.callbacks for hook in _AROUND if not isinstance(one, Quiet))
        return (
            known and trainer.lightning_module.automatic_optimization
            and isinstance(trainer.profiler, PassThroughProfiler)
            and not (unusual or timed or plateau or hooked or loud)
        )  # fmt: skip

    def _make_graphed(self) -> GraphedStep | None:
        trainer = cast(Any, self.trainer)
        module, optimizer = trainer.lightning_module, trainer.optimizers[0]
        why = why_not(module, optimizer, trainer.strategy.root_device, self._lean)
        if why is None and _scaler(trainer) is not None:
            why = f"trainer.precision={trainer.precision} scales the loss by a factor that changes; bf16-mixed does not"
        if why is not None:
            log.warning("graph=auto: steps run eagerly: %s", why)
            self.graph = "never"
            return None

        @torch.enable_grad()
        def step(batch: Any) -> Tensor:
            with trainer.precision_plugin.train_step_context():
                loss: Tensor = module.training_step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return GraphedStep(step, optimizer, module, [*module.objective.modules(), *module.student.modules()])

    def _free(self) -> int:
        """Returns how many of the next steps need no hook, log or validation."""
        trainer, progress = cast(Any, self.trainer), self.batch_progress
        index = progress.current.ready
        if index == 0 or self.restarting:
            return 0
        until = [trainer.num_training_batches - 1 - index]
        if every := trainer.log_every_n_steps:
            until.append(-(self.logging_step + 1) % every)
        if trainer.val_check_batch not in (None, float("inf")):
            counted = progress.total.ready if trainer.check_val_every_n_epoch is None else index
            until.append(-(counted + 1) % trainer.val_check_batch)
        if self.max_steps >= 0:
            until.append(self.max_steps - 1 - self.global_step)
        return max(0, min(until))

    def advance(self, data_fetcher: DataFetcher) -> None:
        """All lean steps that are free, or one of Lightning's; the last one is closed by ``on_advance_end``."""
        free = self._free() if self._lean else 0
        if not free:
            super().advance(data_fetcher)
            return
        trainer = self.trainer
        for left in reversed(range(free)):
            self._step(data_fetcher)
            if not left or trainer.should_stop or trainer.received_sigterm:
                return
            self.logging_step += 1

    def _step(self, data_fetcher: DataFetcher) -> None:
        trainer, progress = cast(Any, self.trainer), self.batch_progress
        module = trainer.lightning_module
        batch, _, _ = next(data_fetcher)
        index = progress.current.ready
        progress.is_last_batch = data_fetcher.done
        if any(x.device != trainer.strategy.root_device for x in batch.values()):  # hooks for nothing else
            batch = trainer.strategy.batch_to_device(batch)
        progress.increment_ready()
        for callback in self._before:
            callback.on_train_batch_start(trainer, module, batch, index)
        module.on_train_batch_start(batch, index)
        progress.increment_started()
        loss = self._optimise(batch, index)
        progress.increment_processed()
        if trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
        outputs = {"loss": loss}
        for callback in self._after:
            callback.on_train_batch_end(trainer, module, outputs, batch, index)
        module.on_train_batch_end(outputs, batch, index)
        progress.increment_completed()

    def _optimise(self, batch: Any, index: int) -> Tensor:
        """One step by a closure, as Lightning's: an optimizer may call it several times."""
        trainer = cast(Any, self.trainer)
        [optimizer], counts = trainer.optimizers, self.automatic_optimization.optim_progress.optimizer
        if self._graphed is not None:
            loss = self._graphed(batch, lambda: trainer.lightning_module.on_train_batch_start(batch, index))
            if loss is not None:
                for progress in (counts.zero_grad, counts.step):
                    progress.increment_ready()
                counts.zero_grad.increment_started()
                for progress in (counts.zero_grad, counts.step):
                    progress.increment_completed()
                return loss
        scaler = _scaler(trainer)
        losses: list[Tensor] = []

        @torch.enable_grad()
        def closure() -> Tensor:
            with trainer.precision_plugin.train_step_context():
                loss: Tensor = trainer.lightning_module.training_step(batch, index)
            counts.zero_grad.increment_ready()
            counts.zero_grad.increment_started()
            optimizer.zero_grad()
            counts.zero_grad.increment_completed()
            (loss if scaler is None else scaler.scale(loss)).backward()
            losses.append(loss.detach())
            return losses[-1]

        counts.step.increment_ready()
        if scaler is None:
            optimizer.step(closure)
        else:  # 16-mixed: a fused optimizer divides by the scale, or leaves a step out, without the host
            closure()
            scaler.step(optimizer)
            scaler.update()
        counts.step.increment_completed()
        return losses[-1]


def _scaler(trainer: Any) -> torch.amp.GradScaler | None:
    """Returns what scales the loss in 16-mixed, or None."""
    found: torch.amp.GradScaler | None = getattr(trainer.precision_plugin, "scaler", None)
    return found


def _overrides(one: L.LightningModule | L.LightningDataModule | L.Callback, hook: str) -> bool:
    """Checks whether ``one`` overrides ``hook``."""
    base = next(kind for kind in (L.LightningModule, L.LightningDataModule, L.Callback) if isinstance(one, kind))
    return getattr(type(one), hook, None) is not getattr(base, hook, None)
