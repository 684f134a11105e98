"""A student of generated images, ``stages.student.turns``: what is built of it, and what can't be combined with it."""

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig
from torch.optim import LBFGS
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tutelage.config.arguments import check_arguments, targets
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.seeding import seeded
from tutelage.training.turns import Turns

_KEY = "stages.student.turns"
_CACHED = "tutelage.sources.cached.Cached"
_PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true", "32", "64")
_NOT_TRAINERS = {  # arguments of the Trainer that Lightning's manual optimisation does not follow
    "gradient_clip_val": f"each player has its own: {_KEY}.clip and {_KEY}.student_clip",
    "accumulate_grad_batches": "use a larger data.batch_size",
}


def turns(stage: DictConfig) -> Turns:
    """Returns the method of generator and student of a stage, with the generator's first weights from its seed."""
    with seeded("init", stage.seed, "generator"):
        made: Turns = instantiate(stage.turns)
    return made


def training_data(stage: DictConfig, data: Data) -> Data:
    """Returns the data of a stage as its training sees them: without examples where a generator makes images."""
    return data.without_training(stage.turns.rounds) if "turns" in stage else data


def check_turns(cfg: DictConfig, stage: DictConfig) -> None:
    """Refuses what a generator and a student in turn can't be trained with.

    Args:
        cfg: the composed config.
        stage: the student's.

    Raises:
        TutelageError: names the key and what to use instead.
    """
    if "turns" not in stage:
        return
    for path, node in targets(stage.turns, _KEY):
        check_arguments(path, node)
    if "_target_" not in stage.turns:
        raise TutelageError(f"{_KEY} has no _target_: it comes with a choice of loss such as loss=data_free/dafl")
    rounds = stage.turns.get("rounds")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise TutelageError(f"{_KEY}.rounds must be a whole number ≥ 1; found {rounds!r}")
    _check_trainer(stage)
    if cfg.assistants or cfg.generations or cfg.stages.student.get("phases"):
        raise TutelageError(f"{_KEY} can't be combined with assistants, generations or stages.student.phases")
    for name, node in stage.sources.items():
        if node.get("_target_") == _CACHED:
            raise TutelageError(
                f"sources.{name}: signals of generated images can't be cached, as each is made once: use sources=frozen"
            )


def _check_trainer(stage: DictConfig) -> None:
    trainer = stage.trainer
    if trainer.devices not in (1, [0], "1") or trainer.strategy != "auto" or trainer.get("num_nodes", 1) != 1:
        raise TutelageError(
            f"trainer.devices={trainer.devices} trainer.strategy={trainer.strategy}: generator and student step in "
            "turn within one training step, which ranks can't share: train on one device (trainer=default)"
        )
    if str(trainer.precision) not in _PRECISIONS:
        raise TutelageError(
            f"trainer.precision={trainer.precision} scales losses, which two players in turn can't share: use one of "
            f"{', '.join(_PRECISIONS[:4])}"
        )
    for key, instead in _NOT_TRAINERS.items():
        if trainer.get(key) not in (None, 1 if key.startswith("acc") else 0):
            raise TutelageError(f"trainer.{key}={trainer[key]} does not reach generator and student in turn: {instead}")
    optimizer = get_object(stage.optimizer._target_)
    if isinstance(optimizer, type) and issubclass(optimizer, LBFGS):
        raise TutelageError("optimizer: LBFGS runs a step several times, which generator and student in turn can't")
    for node in (stage.scheduler.scheduler, stage.turns.get("scheduler")):
        schedule = None if node is None else get_object(node._target_)
        if isinstance(schedule, type) and issubclass(schedule, ReduceLROnPlateau):
            raise TutelageError(
                "scheduler: ReduceLROnPlateau follows validation, and a student of generated images has no real images "
                "to learn by: use another schedule"
            )
