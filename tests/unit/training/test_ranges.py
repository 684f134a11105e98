"""Numbers of callbacks, schedules, groups and optimizers are taken up to the ends of their ranges, and no further."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.training.callbacks.average_best import AverageBest
from tutelage.training.callbacks.best import BestWeights
from tutelage.training.callbacks.ema import Ema
from tutelage.training.callbacks.freeze import FreezeStatistics
from tutelage.training.callbacks.max_norm import MaxNorm
from tutelage.training.callbacks.prune import Prune
from tutelage.training.callbacks.recovery import Recovery
from tutelage.training.compiled import MODES, check_compile
from tutelage.training.dot import DOT
from tutelage.training.graphs import check_option
from tutelage.training.parameter_groups import rules_of
from tutelage.training.schedules import warmup_cosine_cooldown, warmup_decay
from tutelage.training.starts import Reptile

NET = nn.Linear(2, 1)


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(NET.parameters(), 0.1)


def steps(**given: Any) -> Any:
    return warmup_decay(optimizer(), **{"total_steps": 20, **given})


def epochs(**given: Any) -> Any:
    return warmup_cosine_cooldown(optimizer(), **{"total_steps": 60, "steps_per_epoch": 3, **given})


COUNT = (1, 3), (0, -1, True, 1.5)
SHARE = (0.0, 1.0), (-1e-6, 1.000001, math.nan)
RANGES: list[tuple[Callable[..., Any], str, tuple[Any, ...], tuple[Any, ...]]] = [  # argument: what is taken, refused
    (AverageBest, "n", *COUNT),
    (AverageBest, "examples", *COUNT),
    (BestWeights, "mode", ("max", "min", None), ("most", "")),
    (Ema, "decay", (0.0, 0.9999), (-1e-6, 1.0, math.nan)),
    (Ema, "ramp", (1.0, 1e9), (0.999, None, math.nan)),
    (partial(Ema, ramp=None), "beta", (1e-9, 1e9), (0.0, None, math.inf, math.nan)),
    (partial(Ema, ramp=10.0), "beta", (None,), (1.0,)),
    (FreezeStatistics, "after", *SHARE),
    (MaxNorm, "limit", (1e-9, 1e9), (0.0, -1.0, math.nan)),
    (Prune, "sparsity", (1e-6, 1 - 1e-6), (0.0, 1.0, math.nan)),
    (partial(Prune, 0.5, end=0.5), "start", (0.0, 0.49), (-1e-6, 0.5, 0.6)),
    (partial(Prune, 0.5, start=0.5), "end", (0.51, 1.0), (0.5, 1.000001)),
    (partial(Prune, 0.5), "every_n_steps", (1, 3), (0, -1)),
    (partial(Prune, 0.5), "scope", ("global", "layer"), ("local",)),
    (Recovery, "keep", (1, 3), (0, -1)),
    (partial(Reptile, optimizer), "factor", (1e-9, 1e9), (0.0, -1.0, math.nan)),
    (partial(DOT, [*NET.parameters()]), "lr", (0.0, 1e9), (-1e-9, math.nan)),
    (partial(DOT, [*NET.parameters()]), "weight_decay", (0.0, 1e9), (-1e-9, math.nan)),
    (partial(DOT, [*NET.parameters()], momentum=0.5), "delta", (0.0, 0.499), (-1e-9, 0.5, math.nan)),
    (partial(DOT, [*NET.parameters()], delta=0.25), "momentum", (0.25, 0.749), (0.249, 0.75, math.nan)),
    (steps, "end", *SHARE),
    (steps, "shape", ("cosine", "linear"), ("square",)),
    (steps, "warmup", (0, 19, 0.0, 0.95), (20, -1, -1e-6, 1.0, True, 0.99, "2")),
    (partial(steps, warmup=5), "cooldown", (0, 15, 0.0, 0.75, None), (16, -1, 1.0, True, 0.8, "2")),
    (epochs, "end", *SHARE),
    (epochs, "warmup", (0, 9), (10, -1, True, 1.5)),  # of 20 epochs with 10 of cool-down
    (epochs, "cooldown", (0, 14), (15, -1, True, 1.5)),
    (lambda value: rules_of({"layer_decay": value}), "value", (1e-6, 1, 1.0, None), (0.0, -0.5, 1.000001, True, "1")),
    (lambda value: rules_of({"groups": value}), "value", ({}, {"a": {}}, {"a": None}, None), (["a"], {"a": 1})),
    (partial(check_compile, stage="student"), "option", (True, False, *MODES), ("fast", None, 1.5)),
    (partial(check_option, stage="student"), "option", ("never", "auto"), ("always", None, True)),
]


@pytest.mark.parametrize(("make", "argument", "taken", "refused"), RANGES)
def test_a_value_is_taken_up_to_the_ends_of_its_range(make, argument, taken, refused):
    for value in taken:
        make(**{argument: value})
    for value in refused:
        with pytest.raises(TutelageError):
            make(**{argument: value})
