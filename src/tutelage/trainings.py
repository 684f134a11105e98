"""Networks that learn from labels, as artifacts: teachers and specialists, one after the other or at the same time."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from tutelage import artifacts, build, parallel, stages
from tutelage.data.base import ImageData
from tutelage.modules.supervised import SupervisedModule
from tutelage.stages import Trained
from tutelage.weights import digest, load_into, read_state

log = logging.getLogger(__name__)

# What changes how a training is shown, run or found again, but not what comes of it.
_COSMETIC: Mapping[str, tuple[str, ...]] = {
    "data": ("root", "download", "mirrors", "num_workers", "class_names", "eval_batch_size", "verify"),
    "trainer": ("log_every_n_steps", "enable_model_summary"),
    "callbacks": ("progress", "recovery"),
}


def recipe(stage: DictConfig, name: str, data: ImageData) -> dict[str, Any]:
    """All that determines the outcome of a training, as JSON values."""
    plain: dict[str, Any] = OmegaConf.to_container(stage, resolve=True)  # type: ignore[assignment]
    for group, keys in _COSMETIC.items():
        plain[group] = {key: value for key, value in plain[group].items() if key not in keys}
    parts = ("seed", "network", "data", "loss", "optimizer", "scheduler", "trainer", "callbacks")
    found = {part: plain[part] for part in parts}
    found |= {option: plain[option] for option, off in build.SPEED.items() if plain[option] != off}
    return found | {"stage": name, "content": data.fingerprint(), "torch": torch.__version__, "version": 1}


@dataclass(frozen=True)
class Training:
    """One network that learns from labels alone, with all that is needed to train it in any process.

    Attributes:
        stage: the config as this training sees it.
        name: of the stage, and of the kind of artifact.
        root: folder of all artifacts.
        start: file with its first weights; by default they are drawn from the stage's seed.
    """

    stage: DictConfig
    name: str
    root: Path
    start: str | None = None

    def __call__(self) -> Trained:
        """Trains it, or finds it trained."""
        data = build.data(self.stage)

        def learner() -> SupervisedModule:
            made = build.supervised_module(self.stage, self.name, data.num_classes, None)
            if self.start is not None:
                load_into(made.student.net.net, self.start)
            return made

        def train(work: Path) -> None:
            stages.run(self.stage, self.name, work, work / "tensorboard", data, learner)

        return Trained.read(*artifacts.make(self.root, self.name, self._recipe(data), train))

    def is_done(self) -> bool:
        """Whether it would be found."""
        return artifacts.place(self.root, self.name, self._recipe(build.data(self.stage))).is_dir()

    def _recipe(self, data: ImageData) -> dict[str, Any]:
        found = recipe(self.stage, self.name, data)
        return found if self.start is None else found | {"start": digest(read_state(self.start))}


def ahead(trainings: Sequence[Training], cfg: DictConfig) -> None:
    """Trains those that are not there yet at the same time, where ``stages.teacher.workers`` or several GPUs say so.

    Whoever calls them after finds them, bit for bit those that it would have trained: nothing in a training depends on
    what else runs. Only the number of threads may: on a CPU each process has ``OMP_NUM_THREADS``, or where that is not
    set its share of the cores, and sums over more threads can differ in the last digit.
    """
    processes = parallel.workers(cfg.stages.teacher.workers, cfg.trainer)
    if processes > 1 and len(missing := [training for training in trainings if not training.is_done()]) > 1:
        log.info("training %d networks in %d processes", len(missing), min(processes, len(missing)))
        parallel.run(missing, processes, parallel.gpus(cfg.trainer))
