"""Trains networks on labels as artifacts: teachers and specialists, in sequence or in parallel."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tutelage.checkpoints.weights import digest, load_into, read_state
from tutelage.config import factory
from tutelage.data.module import Data
from tutelage.evaluation.results import Trained
from tutelage.pipeline import artifacts, fit, workers
from tutelage.runtime.identity import essential, made_with, with_contents
from tutelage.training.module import SupervisedModule

log = logging.getLogger(__name__)

_PARTS = ("seed", "network", "data", "task", "loss", "optimizer", "scheduler", "trainer", "callbacks")


def recipe(
    stage: DictConfig, name: str, data: Data, parts: Sequence[str] = _PARTS, sources: Any = None
) -> dict[str, Any]:
    """Returns everything that determines the outcome of a training, as JSON values.

    Args:
        stage: the config as this training sees it.
        name: of the stage.
        data: loaded.
        parts: of the stage to include.
        sources: the teachers, as plain values without the files of trained weights; None without a teacher.
    """
    plain = essential(OmegaConf.to_container(stage, resolve=True))  # type: ignore[arg-type]
    found = {part: plain[part] for part in parts} | ({"sources": sources} if sources is not None else {})
    if parts == _PARTS:  # those of a training, of which options of speed count where they are on
        found |= {option: plain[option] for option, off in factory.SPEED.items() if plain[option] != off}
    return with_contents(found) | made_with(found) | {"stage": name, "content": data.fingerprint(), "version": 2}


@dataclass(frozen=True)
class Training:
    """One network to train on labels, with everything that a process needs to do so.

    Attributes:
        stage: the config as this training sees it.
        name: of the stage, and of the kind of artifact.
        root: folder of all artifacts.
        start: file with its first weights; by default they are drawn from the stage's seed.
        since: older artifacts are not reused (:func:`tutelage.pipeline.artifacts.oldest`).
    """

    stage: DictConfig
    name: str
    root: Path
    start: str | None = None
    since: float = artifacts.ALWAYS

    def __call__(self) -> Trained:
        """Trains the network or reuses the artifact."""
        data = factory.data(self.stage)

        def learner() -> SupervisedModule:
            made = factory.supervised_module(self.stage, self.name, data, None)
            if self.start is not None:
                load_into(made.student.net.net, self.start)
            return made

        def train(work: Path) -> None:
            fit.run(self.stage, self.name, work, work / "tensorboard", data, learner)

        return Trained.read(*artifacts.make(self.root, self.name, self.recipe(data), train, self.since))

    def is_done(self) -> bool:
        """Checks whether a finished artifact would be reused."""
        place = artifacts.place(self.root, self.name, self.recipe(factory.data(self.stage)))
        return artifacts.is_usable(place, self.since)

    def recipe(self, data: Data) -> dict[str, Any]:
        """Returns all that determines the outcome, as JSON values."""
        found = recipe(self.stage, self.name, data)
        return found if self.start is None else found | {"start": digest(read_state(self.start))}


def train_in_parallel(trainings: Sequence[Training], cfg: DictConfig) -> None:
    """Trains missing networks in parallel, as ``stages.teacher.workers`` or the number of GPUs allow.

    The results are bit-identical to those of sequential training, except for the number of threads: on a CPU each
    process has ``OMP_NUM_THREADS`` threads, or by default its share of the cores, and sums over more threads can differ
    in the last digit.
    """
    processes = workers.workers(cfg.stages.teacher.workers, cfg.trainer)
    if processes > 1 and len(missing := [training for training in trainings if not training.is_done()]) > 1:
        log.info("training %d networks in %d processes", len(missing), min(processes, len(missing)))
        workers.run(missing, processes, workers.gpus(cfg.trainer))
