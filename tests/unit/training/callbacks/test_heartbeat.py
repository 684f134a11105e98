"""Figures of a training for `tutelage status`."""

import time
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest

from tutelage.runtime import job
from tutelage.tasks.classification import Classification
from tutelage.tasks.regression import Regression
from tutelage.training.callbacks.best import BestWeights
from tutelage.training.callbacks.heartbeat import Heartbeat


@pytest.fixture
def shown(monkeypatch):
    """What the job's heartbeat would hold now."""
    monkeypatch.setattr(job, "sign_of_life", job.SignOfLife())
    return lambda: job.sign_of_life.figures(Path())


def at(step, epoch, *callbacks):
    return SimpleNamespace(
        global_step=step, current_epoch=epoch, max_epochs=4, estimated_stepping_batches=40.0, callbacks=callbacks
    )


@pytest.mark.parametrize(("task", "percent"), [(Classification(), True), (Regression(), False)])
def test_figures_of_a_resumed_training(shown, monkeypatch, task, percent):
    """16 steps in 8 seconds since it went on at step 10: 14 more take 7."""
    module, best, heart = SimpleNamespace(about={"stage": "student"}, task=task), BestWeights(), Heartbeat()
    trainer = at(10, 1, L.Callback(), best)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    heart.on_train_start(trainer, module)
    assert shown() == {
        "stage": "student", "epoch": 1, "epochs": 4, "step": 10, "steps": 40, "seconds_left": None, "best": None,
        "percent": percent,
    }  # fmt: skip
    monkeypatch.setattr(time, "monotonic", lambda: 108.0)
    trainer.global_step, trainer.current_epoch, best.best = 26, 2, 0.5
    assert shown()["seconds_left"] == pytest.approx(7.0)
    assert (shown()["step"], shown()["epoch"], shown()["best"]) == (26, 2, 0.5)
    heart.on_train_end(trainer, module)
    trainer.global_step = 30
    assert shown()["step"] == 26
    trainer.callbacks = []
    heart.on_train_start(trainer, module)
    assert shown()["best"] is None
