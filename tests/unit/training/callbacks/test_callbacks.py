"""The callbacks, each with as much of a trainer as it looks at."""

import hashlib
import logging
import os
import re
import signal
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from tutelage.checkpoints.weights import about, read_state
from tutelage.errors import TutelageError
from tutelage.runtime.signals import sigterm_saves
from tutelage.tasks.classification import Classification
from tutelage.tasks.regression import Regression
from tutelage.training.callbacks import progress
from tutelage.training.callbacks.best import BestWeights, monitored
from tutelage.training.callbacks.finite import FiniteLoss
from tutelage.training.callbacks.progress import Progress
from tutelage.training.callbacks.recovery import Recovery, VerifiedIO, newest_intact, states


def module(**more):
    net = nn.Linear(2, 2)
    student = SimpleNamespace(net=SimpleNamespace(net=net))
    return SimpleNamespace(
        student=student, shown=student, about={"stage": "student"}, device=torch.device("cpu"), task=Classification(),
        trained_beside=dict, written=net,
        validation=Classification().validation(2), **more
    )  # fmt: skip


def trainer(folder="", **more):
    settings = {
        "sanity_checking": False, "is_global_zero": True, "current_epoch": 0, "global_step": 0,
        "default_root_dir": folder, "callback_metrics": {}, "log_every_n_steps": 5, "is_last_batch": False,
        "accumulate_grad_batches": 1, "world_size": 1, "strategy": SimpleNamespace(broadcast=lambda value: value),
    }  # fmt: skip
    return SimpleNamespace(**settings | more)


# -- best -------------------------------------------------------------------------------------------------------------


def validate(best, folder, pl_module, values, start=0):
    best.setup(None, pl_module, "fit")
    for epoch, value in enumerate(values, start):
        with torch.no_grad():
            pl_module.student.net.net.weight.fill_(epoch)
        metrics = {best.monitor: torch.tensor(value)}
        best.on_validation_end(trainer(folder, current_epoch=epoch, callback_metrics=metrics), pl_module)


@pytest.mark.parametrize(
    ("mode", "values", "epoch"),
    [
        ("max", [0.1, 0.5, 0.5, 0.3], 1),  # ties keep the earlier
        ("min", [0.3, 0.2, 0.2, 0.5], 1),
        ("max", [0.5, float("nan"), float("inf") * 0, 0.4], 0),
        ("max", [float("nan"), 0.0], 1),
        ("min", [float("nan"), 5.0, float("nan")], 1),
        ("max", [-2.0, -1.0], 1),
    ],
)
def test_the_best_epoch_is_kept(tmp_path, mode, values, epoch):
    best, pl_module = BestWeights("val/x", mode), module()
    validate(best, tmp_path, pl_module, values)
    assert best.epoch == about(tmp_path / "best.safetensors")["epoch"] == epoch
    assert float(read_state(tmp_path / "best.safetensors")["weight"][0, 0]) == epoch
    assert about(tmp_path / "best.safetensors")["stage"] == "student"


def test_nothing_finite_is_no_best(tmp_path):
    validate(BestWeights("val/x", "max"), tmp_path, module(), [float("nan")] * 3)
    assert not list(tmp_path.iterdir())


def test_best_goes_on_after_a_resume(tmp_path):
    first, pl_module = BestWeights("val/x", "max"), module()
    validate(first, tmp_path, pl_module, [0.4, 0.6])
    second = BestWeights("val/x", "max")
    second.load_state_dict(first.state_dict())
    validate(second, tmp_path, pl_module, [0.5, 0.55], start=2)
    assert second.epoch == about(tmp_path / "best.safetensors")["epoch"] == 1


def test_an_epoch_with_any_figure_that_is_not_finite_is_not_best(tmp_path):
    """Weights that are NaN answer class 0 always: an accuracy like any other."""
    best, pl_module = BestWeights(), module()
    best.setup(None, pl_module, "fit")
    for nll, accuracy in ((float("nan"), 0.9), (1.0, 0.1), (float("inf"), 0.8)):
        metrics = {"val/accuracy": torch.tensor(accuracy), "val/nll": torch.tensor(nll)}
        best.on_validation_end(trainer(tmp_path, callback_metrics=metrics), pl_module)
    assert best.best == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("given", "task", "found"),
    [
        ((None, None), Classification(), ("val/accuracy", "max")),
        ((None, None), Classification("nll"), ("val/nll", "min")),
        (("val/nll", None), Classification(), ("val/nll", "min")),
        (("val/own", "min"), Classification(), ("val/own", "min")),
        ((None, None), Regression(), ("val/rmse", "min")),
    ],
)
def test_what_is_not_given_is_the_task_s(given, task, found):
    assert monitored("callbacks.best", *given, task) == found


def test_the_mode_of_an_unknown_figure_must_be_given():
    with pytest.raises(TutelageError, match=r"other\.mode=max or min is needed for other\.monitor=val/own"):
        monitored("other", "val/own", None, Classification())


def test_a_monitor_that_is_not_logged_is_named():
    with pytest.raises(TutelageError, match="no metric 'val/acuracy' was logged; did you mean 'val/accuracy'"):
        BestWeights("val/acuracy").on_validation_end(trainer(callback_metrics={"val/accuracy": 0}), module())
    with pytest.raises(TutelageError, match=r"callbacks\.best\.mode must be 'max' or 'min'; found 'maximum'"):
        BestWeights(mode="maximum")


# -- finite -----------------------------------------------------------------------------------------------------------


def batch(bad=()):
    inputs = torch.zeros(4, 1, 2, 2)
    for row in bad:
        inputs[row, 0, 1, 1] = torch.inf
    return {"input": inputs, "key": torch.tensor([11, 12, 13, 14])}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_reported_with_its_batch(value):
    where = trainer(current_epoch=2, global_step=41)
    outputs = {"loss": torch.tensor(value)}
    with pytest.raises(
        TutelageError, match=rf"the loss is {value} at epoch 2, batch 7 \(step 41\); .*examples \[12, 14\]"
    ):
        FiniteLoss().on_train_batch_end(where, module(), outputs, batch(bad=[1, 3]), 7)
    with pytest.raises(TutelageError, match=r"examples \[11, 12, 13, 14\]"):
        FiniteLoss().on_train_batch_end(where, module(), outputs, batch(), 7)


def test_a_finite_loss_passes():
    FiniteLoss().on_train_batch_end(trainer(), module(), {"loss": torch.tensor(3e38)}, batch(), 7)


def test_validation_that_is_not_finite_is_reported():
    metrics = {"train/loss": torch.tensor(torch.nan), "val/accuracy": torch.tensor(0.1), "val/nll": torch.tensor(1.0)}
    where = trainer(current_epoch=3, global_step=72, callback_metrics=metrics)
    FiniteLoss().on_validation_end(where, module())
    metrics["val/nll"] = torch.tensor(torch.nan)
    with pytest.raises(TutelageError, match=r"val/nll is nan after epoch 3 \(step 72\)"):
        FiniteLoss().on_validation_end(where, module())


@pytest.mark.parametrize(("batch_idx", "last", "noticed"), [(3, False, False), (4, False, True), (17, True, True)])
def test_on_another_device_it_looks_when_figures_are_logged_and_at_the_end(batch_idx, last, noticed):
    elsewhere = module()
    elsewhere.device = torch.device("meta")
    arguments = trainer(is_last_batch=last), elsewhere, {"loss": torch.tensor(torch.nan)}, batch(), batch_idx
    if noticed:
        with pytest.raises(TutelageError):
            FiniteLoss().on_train_batch_end(*arguments)
    else:
        FiniteLoss().on_train_batch_end(*arguments)


# -- recovery ---------------------------------------------------------------------------------------------------------


class Saver:
    """A trainer that notes at which steps it was asked to save."""

    def __init__(self, folder, **more):
        vars(self).update(vars(trainer(str(folder), **more)))
        self.saved = []

    def save_checkpoint(self, path, weights_only):
        assert weights_only is False
        self.saved.append(self.global_step)
        VerifiedIO(path.parent).save_checkpoint({"step": self.global_step}, path)


def steps(recovery, saver, count, per_epoch=100):
    recovery.on_train_start(saver, module())
    for step in range(saver.global_step, count):
        saver.global_step = step
        recovery.on_train_batch_start(saver, module(), None, step % per_epoch)
    return saver.saved


def test_states_by_steps(tmp_path):
    assert steps(Recovery(every_n_steps=4, every_n_seconds=0), Saver(tmp_path), 14) == [4, 8, 12]
    assert [path.name[:13] for path in states(tmp_path / "states")] == ["step=00000008", "step=00000012"]


def test_the_state_that_a_run_came_from_is_not_saved_again(tmp_path):
    assert steps(Recovery(every_n_steps=4, every_n_seconds=0), Saver(tmp_path, global_step=8), 14) == [12]


def test_states_by_time(tmp_path, monkeypatch):
    now = iter(range(0, 1000, 3))
    monkeypatch.setattr("tutelage.training.callbacks.recovery.time.monotonic", lambda: next(now))
    assert len(steps(Recovery(every_n_seconds=10), Saver(tmp_path), 30)) in range(5, 10)


def test_neither(tmp_path):
    assert steps(Recovery(every_n_steps=0, every_n_seconds=0), Saver(tmp_path), 30) == []


def test_never_between_the_batches_of_one_step(tmp_path):
    saver = Saver(tmp_path, accumulate_grad_batches=2, global_step=4)
    recovery = Recovery(every_n_steps=1, every_n_seconds=0)
    recovery.on_train_batch_start(saver, module(), None, 9)
    assert not saver.saved
    recovery.on_train_batch_start(saver, module(), None, 10)
    assert saver.saved == [4]


def test_a_sigterm_is_answered_with_a_state(tmp_path):
    recovery, saver = Recovery(every_n_seconds=0), Saver(tmp_path, global_step=7)

    def train():
        recovery.on_train_start(saver, module())
        recovery.on_train_batch_start(saver, module(), None, 7)
        assert not saver.saved
        os.kill(os.getpid(), signal.SIGTERM)
        recovery.on_train_batch_start(saver, module(), None, 8)

    with pytest.raises(SystemExit) as stop, sigterm_saves():
        train()
    assert isinstance(stop.value, SIGTERMException)
    assert saver.saved == [7]


def test_ranks_stop_at_the_same_step(tmp_path):
    """Only one of them hears the signal, and they compare notes at every fifth step."""
    recovery, saver = Recovery(every_n_seconds=0), Saver(tmp_path, world_size=2)
    saver.strategy = SimpleNamespace(reduce_boolean_decision=lambda mine, all: True, broadcast=lambda value: value)
    for saver.global_step in range(1, 5):
        recovery.on_train_batch_start(saver, module(), None, saver.global_step)
    assert not saver.saved
    saver.global_step = 5
    with pytest.raises(SIGTERMException):
        recovery.on_train_batch_start(saver, module(), None, 5)
    assert saver.saved == [5]


def saved(world_size):
    checkpoint = {"loops": {"fit_loop": {"epoch_loop.state_dict": {"_batches_that_stepped": 3}}}}
    Recovery().on_save_checkpoint(trainer(world_size=world_size), module(), checkpoint)
    return checkpoint


def test_a_state_of_another_number_of_ranks_is_refused():
    Recovery().on_load_checkpoint(trainer(world_size=2), module(), saved(2))
    with pytest.raises(
        TutelageError, match=r"run: its state was saved by 2 ranks, now there are 1; resume with as many"
    ):
        Recovery().on_load_checkpoint(trainer("run", world_size=1), module(), saved(2))


def test_seconds_add_up_over_attempts(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tutelage.training.callbacks.recovery.time.monotonic", lambda: now[0])
    first = Recovery()
    first.on_train_start(trainer(), module())
    now[0] = 107.0
    second = Recovery()
    second.load_state_dict(first.state_dict())
    second.on_train_start(trainer(), module())
    now[0] = 110.0
    assert second.seconds == 10.0


def write_states(folder, count=3):
    for step in range(count):
        VerifiedIO(folder).save_checkpoint(
            {"step": step, "x": torch.full((50,), float(step))}, folder / f"step={step:08d}.ckpt"
        )
    return states(folder)


def test_a_state_has_its_digest_in_its_name(tmp_path):
    for path in write_states(tmp_path):
        assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem.rpartition("-")[2])
    assert torch.load(newest_intact(tmp_path), weights_only=True)["step"] == 2
    assert newest_intact(tmp_path / "none") is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_state_is_passed_over_and_that_is_said(tmp_path, caplog, damage):
    *_, before, newest = write_states(tmp_path)
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
    newest.write_bytes({"flip": content, "truncate": content[:-1], "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        assert newest_intact(tmp_path) == before
    assert f"{newest} is truncated or damaged" in caplog.text


def test_all_damaged_is_none(tmp_path):
    for path in write_states(tmp_path):
        path.write_bytes(b"x")
    assert newest_intact(tmp_path) is None


# -- progress ---------------------------------------------------------------------------------------------------------


class Dot(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.about = {"stage": "student"}

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        self.log_dict({"train/loss": loss, "train/hard": loss}, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/accuracy", 0.75, prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_user_sees(tmp_path, terminal):
    bar = Progress(seconds=0.0)
    with (tmp_path / "out").open("w") as file:
        bar.console = Console(file=file, force_terminal=terminal, width=160)
        data = DataLoader(torch.ones(8, 1), batch_size=2)
        L.Trainer(
            max_epochs=20, callbacks=[bar], logger=False, enable_checkpointing=False, enable_model_summary=False,
            accelerator="cpu", num_sanity_val_steps=0,
        ).fit(Dot(), data, data)  # fmt: skip
    said = (tmp_path / "out").read_text()
    assert "epoch 20/20" in said
    assert re.search(r"\d+ ?(it)?/s", said)
    assert "loss" in said
    assert "hard" in said
    assert "val accuracy 0.75" in said
    if terminal:
        assert "student trained: 20 epochs" in said
    else:
        assert len(said.splitlines()) == 10


def test_the_speed_is_of_the_steps_since_they_were_counted_last(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    bar, trainer = Progress(), SimpleNamespace(global_step=50, is_global_zero=False)  # of a resumed training
    bar.on_train_start(trainer, None)
    for now, step, speed in ((102.0, 60, 5), (102.05, 70, 5), (103.0, 80, 20), (103.0625, 90, 20), (103.125, 100, 160)):
        clock[0], trainer.global_step = now, step
        bar._measure(trainer)
        assert bar._speed == pytest.approx(speed)
