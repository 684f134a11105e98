import math

import lightning as L
import pytest
from command import TINY

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.training.schedule_length import length

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


class Rates(L.Callback):
    """Notes the learning rate of each step."""

    def __init__(self):
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def train(compose, *overrides: str) -> tuple[list[float], L.Trainer]:
    stage = factory.stage_config(compose(*TINY, "optimizer.lr=1.0", *overrides), "control")
    data, rates = factory.data(stage), Rates()
    factory.try_optimizer(stage, "control", len(data.train_dataloader()))
    trainer = L.Trainer(
        max_epochs=stage.trainer.max_epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=[rates],
        accumulate_grad_batches=stage.trainer.get("accumulate_grad_batches", 1),
    )  # fmt: skip
    trainer.fit(factory.supervised_module(stage, "control", data.num_classes, None), datamodule=data)
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
    never = ("scheduler.scheduler.mode=max", "scheduler.scheduler.patience=0", "+scheduler.scheduler.threshold=100")
    seen, _ = train(compose, "scheduler=plateau", *never, "trainer.max_epochs=3", "scheduler.monitor=val/accuracy")
    assert seen == pytest.approx([1.0] * 36 + [0.1] * 18)


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
        (["scheduler=plateau", "scheduler.monitor=null"], "scheduler.monitor: ReduceLROnPlateau needs a metric"),
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
    factory.try_optimizer(stage, "teacher", None)
    stage.scheduler.interval, stage.scheduler.scheduler.milestones = "step", [30]
    factory.try_optimizer(stage, "teacher", None)
    with pytest.raises(TutelageError, match="30 is never reached: the teacher's training has 20 steps"):
        factory.try_optimizer(stage, "teacher", 10)
