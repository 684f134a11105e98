"""Warm-up, constant rate and cool-down over the steps of a training."""

import lightning as L
import numpy as np
import pytest
import torch
from command import TINY
from torch import nn

from tutelage.config import factory, optimizers
from tutelage.errors import TutelageError
from tutelage.training.schedule_length import follows_length
from tutelage.training.schedules import warmup_cosine_cooldown, warmup_decay


def rates(steps, **arguments):
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (2.0, 0.5)])
    schedule, seen = warmup_decay(optimizer, **arguments), []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return np.array(seen)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize(("warmup", "rise"), [(0, 0), (4, 4), (0.25, 5)])
@pytest.mark.parametrize(("cooldown", "fall"), [(None, None), (0.2, 4), (10, 10), (0, 0)])
@pytest.mark.parametrize("end", [0.0, 0.1])
def test_it_is_the_trapezoid_of_its_formula(shape, warmup, rise, cooldown, fall, end):
    total = 20
    fall = total - rise if fall is None else fall
    t = np.arange(total, dtype=np.float64)
    x = np.clip((t - (total - fall)) / max(fall, 1), 0, 1)
    falls = end + (1 - end) * ((1 + np.cos(np.pi * x)) / 2 if shape == "cosine" else 1 - x)
    wanted = np.where(t < rise, (t + 1) / max(rise, 1), np.where(t >= total - fall, falls, 1.0))
    found = rates(total, total_steps=total, warmup=warmup, cooldown=cooldown, shape=shape, end=end)
    np.testing.assert_allclose(found[:, 0], 2 * wanted, rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], 0.5 * wanted, rtol=1e-12)


def test_after_its_last_step_the_rate_is_the_end():
    assert rates(21, total_steps=20, warmup=2, end=0.25)[-1, 0] == 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"warmup": 15, "cooldown": 6}, "scheduler.warmup=15 and cooldown=6 are 15 and 6 steps of a training of 20"),
        ({"warmup": 20}, "scheduler.warmup=20 is 20 steps of a training of 20: nothing would be left after it"),
        ({"warmup": 1.0}, "scheduler.warmup=1.0: a share of the training is below 1"),
        ({"warmup": -1}, "scheduler.warmup must be"),
        ({"cooldown": True}, "scheduler.cooldown must be"),
        ({"shape": "square"}, "shape must be cosine or linear; found 'square'"),
        ({"end": 2.0}, "end must be from 0 to 1"),
    ],
)
def test_what_fits_no_training_is_refused(arguments, said):
    with pytest.raises(TutelageError, match=said):
        rates(1, total_steps=20, **arguments)


class Rates(L.Callback):
    """Notes the learning rate of each optimizer step."""

    def __init__(self):
        self.seen = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]


def trained(compose, *overrides):
    stage = factory.stage_config(compose(*TINY, "optimizer.lr=1.0", *overrides), "control")
    data, seen = factory.data(stage), Rates()
    optimizers.try_optimizer(stage, "control", len(data.train_dataloader()))
    course = {key: stage.trainer[key] for key in ("accumulate_grad_batches", "max_steps") if key in stage.trainer}
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[seen], **course,
    )  # fmt: skip
    trainer.fit(factory.supervised_module(stage, "control", data, None), datamodule=data)
    return list(seen.seen.values())


@pytest.mark.parametrize(
    ("overrides", "total"), [((), 36), (("+trainer.accumulate_grad_batches=4",), 10), (("+trainer.max_steps=20",), 20)]
)
def test_a_training_s_steps_are_known(compose, overrides, total):
    """18 batches an epoch, 2 epochs: 4 batches a step leave 2 for the last step of an epoch."""
    seen = trained(compose, "scheduler=warmup_linear", "scheduler.warmup=3", *overrides)
    assert seen == pytest.approx(rates(total, total_steps=total, warmup=3, shape="linear")[:, 0] / 2)


def test_an_epochs_steps_are_known(compose):
    cycle, epoch = ("scheduler=warmup_cosine_cooldown", "scheduler.warmup=1", "scheduler.cooldown=0"), 5
    seen = trained(compose, *cycle, "+trainer.accumulate_grad_batches=4")
    assert seen[: epoch + 1] == [0.5] * epoch + [1.0]
    assert len(seen) == 2 * epoch
    k = np.arange(epoch)
    assert seen[epoch:] == pytest.approx(0.99 * (1 + np.cos(np.pi * k / (epoch + 1))) / 2 + 0.01)


@pytest.mark.parametrize("name", ["warmup_cosine", "warmup_linear", "warmup_stable_decay", "warmup_cosine_cooldown"])
def test_a_longer_training_would_have_had_other_rates(compose, name):
    node = compose(*TINY, f"scheduler={name}").scheduler.scheduler
    assert follows_length(node) == "total_steps"
    assert follows_length({**node, "total_steps": 50}) is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["scheduler.warmup=100"], "scheduler.warmup=100 is 100 steps of a training of"),
        (["scheduler.scheduler.total_steps=30"], "it ends after 30 steps, before the training"),
    ],
)
def test_a_stage_s_length_is_checked_before_it_trains(compose, overrides, said):
    stage = factory.stage_config(compose(*TINY, "scheduler=warmup_cosine", *overrides), "control")
    with pytest.raises(TutelageError, match=said):
        optimizers.try_optimizer(stage, "control", 18)


def test_a_stage_of_an_unknown_length_is_not_refused(compose):
    cfg = compose(*TINY, "scheduler=warmup_cosine", "scheduler.warmup=100", "+stages.teacher.scheduler.warmup=7")
    optimizers.try_optimizer(factory.stage_config(cfg, "control"), "control", None)
    assert factory.stage_config(cfg, "teacher").scheduler.scheduler.warmup == 7


EPOCH, EPOCHS = 100, 310  # the recipe of SuperGradients for ResNet-50: 5 epochs of warm-up, 10 of cool-down


def recipe(steps=EPOCH * EPOCHS, **arguments):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=5e-3)
    schedule = warmup_cosine_cooldown(optimizer, steps, EPOCH, **arguments)
    return np.array([schedule.lr_lambdas[0](step) * 5e-3 for step in range(steps)])


def test_the_recipes_rates_are_those_of_the_original():
    found = recipe()
    rise = [8.33e-4, 8.33e-4, 1.667e-3, 4.167e-3, 4.167e-3]
    np.testing.assert_allclose(found[[0, 99, 100, 400, 499]], rise, rtol=1e-3)
    n = len(found) - 1500
    fall = 0.5 * 5e-3 * (1 + np.cos(np.pi * np.arange(n) / (n + 1))) * 0.99 + 0.01 * 5e-3
    np.testing.assert_allclose(found[500:-1000], fall, rtol=1e-12)
    assert found[500] == 5e-3
    np.testing.assert_allclose(found[-1000:], 5e-5, rtol=2e-6)
    assert len(set(found[-1001:])) == 1  # the cool-down stays at what the cosine reached


def test_without_warm_up_and_cool_down_it_is_the_cosine():
    found = recipe(50, warmup=0, cooldown=0, end=0.0)
    np.testing.assert_allclose(found, 5e-3 * (1 + np.cos(np.pi * np.arange(50) / 51)) / 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"steps": 1500}, "warmup=5 and cooldown=10 epochs of 100 steps leave nothing of a training of 1500 steps"),
        ({"warmup": 0.5}, "scheduler.warmup must be a number of epochs, 0 or more; found 0.5"),
        ({"cooldown": -1}, "scheduler.cooldown must be a number of epochs"),
        ({"end": -0.1}, "end must be from 0 to 1"),
    ],
)
def test_epochs_that_fit_no_training_are_refused(arguments, said):
    with pytest.raises(TutelageError, match=said):
        recipe(**arguments)
