"""Private APIs of Lightning."""

from collections.abc import Mapping
from typing import Any, cast

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loops.fetchers import _DataFetcher, _PrefetchDataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

# The types of what hands an epoch loop its batches; Lightning exports neither, and the loop's hooks take one.
DataFetcher = _DataFetcher
PrefetchDataFetcher = _PrefetchDataFetcher


class EpochLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, to be subclassed.

    ``trainer.fit_loop.epoch_loop`` may be replaced in public, but the class to derive from is exported nowhere.
    """

    @property
    def logging_step(self) -> int:
        """Batches so far that ended an optimizer step: the step under which loggers write, which has no public name."""
        return self._batches_that_stepped

    @logging_step.setter
    def logging_step(self, step: int) -> None:
        self._batches_that_stepped = step


def logging_step(trainer: L.Trainer) -> int:
    """Returns the step under which Lightning's loggers write now.

    ``trainer.global_step`` counts optimizers as well; the count that loggers see has no public name.
    """
    step: int = trainer.fit_loop.epoch_loop._batches_that_stepped
    return step


def take_back_logging_step(checkpoint: dict[str, Any]) -> None:
    """Subtracts one from the logging step of a checkpoint, in place.

    On resuming Lightning adds one, for its own checkpoints are saved before a batch is counted; one that is saved at
    another moment has no public way to say so.
    """
    checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def move_to_next_epoch(checkpoint: dict[str, Any]) -> None:
    """Makes of a checkpoint taken at the end of a training, in place, what it would be at the next epoch's first batch.

    Lightning has no public way to train a finished training on: it takes such a checkpoint for one within the epoch
    that ended, and its next epoch for one without batches.
    """
    loops = checkpoint["loops"]["fit_loop"]
    for counts in (loops["epoch_progress"][part] for part in ("total", "current")):
        for count in ("ready", "started"):
            counts[count] += 1
    loops["state_dict"].pop("combined_loader", None)  # how far an epoch's batches had been read
    batches = loops["epoch_loop.batch_progress"]
    batches["is_last_batch"] = False
    optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    begun = [batches, loops["epoch_loop.scheduler_progress"], optimizer["step"], optimizer["zero_grad"]]
    validated = loops["epoch_loop.val_loop.batch_progress"]["total"]
    for counts in (*(progress["current"] for progress in begun), validated):
        counts.update(dict.fromkeys(counts, 0))


def detects_anomaly(trainer: L.Trainer) -> bool:
    """Checks whether the trainer was made with ``detect_anomaly=True``, which it keeps to itself."""
    return trainer._detect_anomaly


def validates_by_time(trainer: L.Trainer) -> bool:
    """Checks whether ``val_check_interval`` is a duration, which the trainer keeps to itself."""
    return cast(Any, trainer)._val_check_time_interval is not None


def add_ddp_arguments(strategy: DDPStrategy, arguments: Mapping[str, Any]) -> None:
    """Adds arguments of ``DistributedDataParallel`` to a strategy that was made without them.

    In public they are given to the strategy's constructor only, before the networks exist of which they depend.
    """
    strategy._ddp_kwargs |= arguments


class ModelParallelOnRanks(ModelParallelStrategy):
    """Lightning's ``ModelParallelStrategy`` on ranks that run already.

    In public the strategy starts its ranks itself unless the cluster's environment does, and the size of the
    data-parallel dimension is given before the number of ranks is known.
    """

    def check_ranks(self) -> None:
        """Checks that the ranks exist; called when the trainer is made, in place of a launcher."""
        raise NotImplementedError

    def _configure_launcher(self) -> None:
        self.check_ranks()

    def set_data_parallel_size(self, ranks: int) -> None:
        """Sets the size of the mesh's data-parallel dimension; before ``setup_environment`` makes the mesh."""
        self._data_parallel_size = ranks


def open_experiment(logger: Logger) -> Any:
    """Returns the experiment that a logger has begun, None if it has begun none.

    The public property ``experiment`` begins one that was never asked for.
    """
    return vars(logger).get("_experiment")
