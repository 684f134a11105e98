"""Learning-rate schedules that know the length of the training."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tutelage.errors import TutelageError

_SHAPES = ("cosine", "linear")


def warmup_decay(
    optimizer: Optimizer,
    total_steps: int,
    warmup: int | float = 0,
    cooldown: int | float | None = None,
    shape: str = "cosine",
    end: float = 0.0,
) -> LambdaLR:
    """Returns a schedule that rises linearly, stays, and falls at the end of the training.

    Step t, from 0, has the learning rate times (t + 1)/W for t < W = ``warmup``, 1 up to the last C = ``cooldown``
    steps, and then, with x = (t − T + C)/C, times end + (1 − end)·(1 + cos πx)/2 or end + (1 − end)·(1 − x). Every
    parameter group is multiplied alike.

    Args:
        optimizer: whose learning rates are set.
        total_steps: T, the length of the training in steps of the schedule; in a config null means the whole training.
        warmup: an integer of steps, or a share of T as a float below 1.
        cooldown: the same; None: all that follows the warm-up, so that nothing is constant.
        shape: of the fall, ``cosine`` or ``linear``.
        end: what the rate is multiplied by after the last step.

    Raises:
        TutelageError: an argument out of its range, or a warm-up and cool-down that are longer than the training.
    """
    if shape not in _SHAPES:
        raise TutelageError(f"scheduler.scheduler.shape must be {' or '.join(_SHAPES)}; found {shape!r}")
    if not 0 <= end <= 1:
        raise TutelageError(f"scheduler.scheduler.end must be from 0 to 1; found {end!r}")
    rise = _steps("warmup", warmup, total_steps)
    fall = total_steps - rise if cooldown is None else _steps("cooldown", cooldown, total_steps)
    if rise + fall > total_steps or rise >= total_steps:
        if cooldown is None:
            raise TutelageError(
                f"scheduler.warmup={warmup} is {rise} steps of a training of {total_steps}: nothing would be left "
                "after it"
            )
        raise TutelageError(
            f"scheduler.warmup={warmup} and cooldown={cooldown} are {rise} and {fall} steps of a training of "
            f"{total_steps}: nothing would be left between them"
        )

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        if step < total_steps - fall or not fall:
            return 1.0
        x = min(1.0, (step - total_steps + fall) / fall)
        left = (1 + math.cos(math.pi * x)) / 2 if shape == "cosine" else 1 - x
        return end + (1 - end) * left

    return LambdaLR(optimizer, factor)


def warmup_cosine_cooldown(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    warmup: int = 5,
    cooldown: int = 10,
    end: float = 0.01,
) -> LambdaLR:
    """Returns a schedule that rises by epochs, falls by steps along half a cosine, and stays where it has arrived.

    Step t, from 0, of a training of T = ``total_steps`` with E = ``steps_per_epoch``, W = ``warmup`` and
    C = ``cooldown`` epochs has the learning rate times (⌊t/E⌋ + 1)/(W + 1) for t < W·E; then, with k = t − W·E and
    n = T − (W + C)·E, times end + (1 − end)·(1 + cos(πk/(n + 1)))/2; and in the last C·E steps what k = n − 1 had. That
    of SuperGradients' recipe for ResNet-50 on ImageNet. Every parameter group is multiplied alike.

    Args:
        optimizer: whose learning rates are set.
        total_steps: T, the length of the training in steps of the schedule; in a config null means the whole training.
        steps_per_epoch: E; in a config null means that of the training.
        warmup: W, in epochs.
        cooldown: C, in epochs.
        end: what the cosine ends at, of the learning rate.

    Raises:
        TutelageError: an argument out of its range, or a warm-up and cool-down that leave no step between them.
    """
    for name, value in (("warmup", warmup), ("cooldown", cooldown)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise TutelageError(f"scheduler.{name} must be a number of epochs, 0 or more; found {value!r}")
    if not 0 <= end <= 1:
        raise TutelageError(f"scheduler.scheduler.end must be from 0 to 1; found {end!r}")
    rise, fall = warmup * steps_per_epoch, total_steps - (warmup + cooldown) * steps_per_epoch
    if fall < 1:
        raise TutelageError(
            f"scheduler.warmup={warmup} and cooldown={cooldown} epochs of {steps_per_epoch} steps leave nothing of a "
            f"training of {total_steps} steps between them"
        )

    def factor(step: int) -> float:
        if step < rise:
            return (step // steps_per_epoch + 1) / (warmup + 1)
        k = min(step - rise, fall - 1)
        return end + (1 - end) * (1 + math.cos(math.pi * k / (fall + 1))) / 2

    return LambdaLR(optimizer, factor)


def _steps(name: str, given: float, total: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int | float) or given < 0:
        raise TutelageError(f"scheduler.{name} must be a number of steps, or a share below 1; found {given!r}")
    if isinstance(given, int):
        return given
    if given >= 1:
        raise TutelageError(f"scheduler.{name}={given}: a share of the training is below 1; steps are an integer")
    return round(given * total)
