import math

import lightning as L
import pytest
import torch
from command import TINY
from hydra.utils import instantiate

from tutelage.config import factory, optimizers
from tutelage.errors import TutelageError
from tutelage.training.schedule_length import length, steps_and_batches, watching

STEP = ("scheduler=cosine", "scheduler.interval=step")
ONE_CYCLE = "scheduler.scheduler={_target_: torch.optim.lr_scheduler.OneCycleLR, _partial_: true, max_lr: 0.1"


@pytest.mark.parametrize(
    ("trainer", "steps"),
    [
        ({}, 30),
        ({"max_steps": -1}, 30),
        ({"max_steps": 7}, 7),
        ({"limit_train_batches": 4}, 12),
        ({"limit_train_batches": 40}, 30),
        ({"limit_train_batches": 0.5}, 15),
        ({"limit_train_batches": 1.0}, 30),
        ({"accumulate_grad_batches": 4}, 9),
        ({"accumulate_grad_batches": 4, "limit_train_batches": 8}, 6),
    ],
)
def test_the_length_of_a_training(trainer, steps):
    """Of 3 epochs of 10 batches."""
    assert length("step", {"max_epochs": 3, **trainer}, 10) == steps
    assert length("epoch", {"max_epochs": 3, **trainer}, 10) == 3


@pytest.mark.parametrize(
    ("trainer", "accumulation", "steps", "batches"),
    [
        ({}, None, 30, 30),
        ({}, {0: 4}, 9, 30),
        ({}, {1: 4}, 10 + 3 + 3, 30),
        ({}, {0: 5, 2: 1}, 2 + 2 + 10, 30),
        ({"max_steps": 11}, {1: 4}, 11, 14),
        ({"max_steps": 13}, {1: 4}, 13, 20),
        ({"max_steps": 0}, {1: 4}, 0, 0),
        ({"max_steps": 4, "accumulate_grad_batches": 4}, None, 4, 14),
        ({"limit_train_batches": 0.5}, {0: 2}, 9, 15),
    ],
)
def test_steps_where_batches_are_accumulated_by_epoch(trainer, accumulation, steps, batches):
    """Of 3 epochs of 10 batches."""
    assert steps_and_batches({"max_epochs": 3, **trainer}, 10, accumulation) == (steps, batches)


@pytest.mark.parametrize("most", [-1, 11, 5])
@pytest.mark.parametrize("scheduling", [{0: 4}, {1: 3}, {0: 7, 2: 2}])
def test_lightning_counts_the_same(scheduling, most):
    data = torch.utils.data.DataLoader(torch.zeros(10, 2))
    trainer = L.Trainer(
        max_epochs=3, max_steps=most, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[L.pytorch.callbacks.GradientAccumulationScheduler(scheduling)],
    )  # fmt: skip
    net = Counting()
    trainer.fit(net, data)
    expected = steps_and_batches({"max_epochs": 3, "max_steps": most}, 10, scheduling)
    assert (trainer.global_step, net.batches) == expected


class Counting(L.LightningModule):
    """Counts the batches that it is trained on."""

    def __init__(self):
        super().__init__()
        self.net, self.batches = torch.nn.Linear(2, 1), 0

    def training_step(self, batch, batch_idx):
        self.batches += 1
        return self.net(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Rates(L.Callback):
    """Notes the learning rate of each step."""

    def __init__(self):
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def train(compose, *overrides: str) -> tuple[list[float], L.Trainer]:
    stage = factory.stage_config(compose(*TINY, "optimizer.lr=1.0", *overrides), "control")
    data, rates = factory.data(stage), Rates()
    optimizers.try_optimizer(stage, "control", len(data.train_dataloader()))
    trainer = L.Trainer(
        max_epochs=stage.trainer.max_epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=[rates],
        accumulate_grad_batches=stage.trainer.get("accumulate_grad_batches", 1),
    )  # fmt: skip
    trainer.fit(factory.supervised_module(stage, "control", data, None), datamodule=data)
    return rates.seen, trainer


def test_a_cosine_by_steps_falls_over_the_whole_training(compose):
    seen, trainer = train(compose, *STEP)
    total = trainer.global_step
    assert total == len(seen) == 36
    assert seen == pytest.approx([0.5 * (1 + math.cos(math.pi * step / total)) for step in range(total)], abs=1e-6)


def test_and_where_a_step_accumulates_batches(compose):
    seen, trainer = train(compose, *STEP, "+trainer.accumulate_grad_batches=4")
    assert trainer.global_step == 10
    assert seen[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 9 / 10)), abs=1e-6)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-6)


def test_a_cosine_by_epochs_is_what_it_was(compose):
    seen, _ = train(compose, "scheduler=cosine")
    assert seen == pytest.approx([1.0] * 18 + [0.5] * 18)


def test_a_one_cycle_without_a_length_has_the_training_s(compose):
    seen, _ = train(compose, "scheduler=constant", "scheduler.interval=step", f"{ONE_CYCLE}, total_steps: null}}")
    assert max(seen) == pytest.approx(0.1, rel=1e-3)
    assert seen[-1] < 1e-4


def test_a_rate_falls_when_its_figure_gets_no_better(compose):
    never = ("scheduler.scheduler.patience=0", "+scheduler.scheduler.threshold=100")
    seen, _ = train(compose, "scheduler=plateau", *never, "trainer.max_epochs=3", "scheduler.monitor=val/accuracy")
    assert seen == pytest.approx([1.0] * 36 + [0.1] * 18)


@pytest.mark.parametrize(
    ("data", "monitor", "watched", "mode"),
    [
        ("digits", "val/nll", "val/nll", "min"),
        ("digits", "val/agreement", "val/agreement", "max"),
        ("digits", "null", "val/accuracy", "max"),
        ("diabetes", "val/rmse", "val/rmse", "min"),
        ("diabetes", "val/r2", "val/r2", "max"),
        ("diabetes", "null", "val/rmse", "min"),
    ],
)
def test_a_plateau_watches_any_figure_of_the_task_in_its_direction(compose, data, monitor, watched, mode):
    stage = factory.stage_config(
        compose("scheduler=plateau", f"data={data}", f"scheduler.monitor={monitor}", "model@student=mlp"), "student"
    )
    optimizers.try_optimizer(stage, "student", 10)
    own = instantiate(stage.task)
    schedule, figure = watching(stage.scheduler, instantiate(stage.scheduler.scheduler), own)
    assert figure == watched
    assert schedule(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)).mode == mode


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["scheduler=multistep"], "milestones: 150 is never reached: the teacher's training has 2 epochs"),
        (["scheduler=multistep", "scheduler.scheduler.milestones=[1,2]"], "milestones: 2 is never reached"),
        (["scheduler=multistep", "scheduler.interval=step", "scheduler.scheduler.milestones=[18,40]"],
         "milestones: 40 is never reached: the teacher's training has 36 steps (scheduler.interval=step)"),
        (["scheduler=multistep", "scheduler.scheduler.milestones=[1]", "stages.student.trainer.max_epochs=1"],
         "milestones: 1 is never reached: the student's training has 1 epochs"),
        ([*STEP, "scheduler.scheduler.T_max=${trainer.max_epochs}"], "T_max=2 counts epochs, but the teacher's"),
        (["scheduler=constant", "scheduler.interval=step", f"{ONE_CYCLE}, total_steps: 30}}"],
         "scheduler.scheduler: it ends after 30 steps, before the training: the teacher's training has 36 steps"),
        (["scheduler=plateau", "scheduler.monitor=val/los"], "ReduceLROnPlateau needs a metric; did you mean"),
        (["scheduler=plateau", "scheduler.monitor=val/accuracy", "scheduler.scheduler.mode=min"],
         "scheduler.scheduler.mode=min: the rate would fall while val/accuracy gets better; use mode=max"),
        (["scheduler=plateau", "scheduler.interval=step"], "scheduler.interval must be epoch with ReduceLROnPlateau"),
        (["scheduler=cosine", "+scheduler.monitor=val/nll"], "only ReduceLROnPlateau uses a metric"),
    ],
)  # fmt: skip
def test_a_schedule_that_does_not_fit_is_refused_before_training(main, tmp_path, overrides, said):
    answer = main("distill", *TINY, *overrides, "hydra.run.dir=run")
    assert answer.code == 1
    assert said in answer.message
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_stage_with_data_of_its_own_is_checked_before_it_trains(compose):
    stage = factory.stage_config(compose(*TINY, "scheduler=multistep", "scheduler.scheduler.milestones=[1]"), "teacher")
    optimizers.try_optimizer(stage, "teacher", None)
    stage.scheduler.interval, stage.scheduler.scheduler.milestones = "step", [30]
    optimizers.try_optimizer(stage, "teacher", None)
    with pytest.raises(TutelageError, match="30 is never reached: the teacher's training has 20 steps"):
        optimizers.try_optimizer(stage, "teacher", 10)
