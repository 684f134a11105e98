"""Max-norm: by hand, in lean steps, for the teacher alone."""

import lightning as L
import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch import nn

from tutelage.checkpoints.weights import digest
from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.training.callbacks.max_norm import MaxNorm, limit_norm_
from tutelage.training.fast_loop import LeanEpochLoop

LIMIT = 0.6


def test_a_unit_that_is_too_long_is_scaled_back_and_the_others_stay():
    weight = torch.tensor([[3.0, 4.0], [0.3, -0.1], [0.0, 0.0], [0.0, -2.0]])
    limit_norm_(weight, 2.0)
    torch.testing.assert_close(weight, torch.tensor([[1.2, 1.6], [0.3, -0.1], [0.0, 0.0], [0.0, -2.0]]))
    again = weight.clone()
    limit_norm_(again, 2.0)
    torch.testing.assert_close(again, weight, rtol=1e-6, atol=0)


def test_a_unit_of_a_convolution_is_an_output_channel():
    weight = torch.stack([torch.full((2, 3, 3), 1.0), torch.full((2, 3, 3), -0.1)])
    limit_norm_(weight, 1.0)
    assert weight[0].norm() == pytest.approx(1.0)
    assert torch.equal(weight[1], torch.full((2, 3, 3), -0.1))


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_a_limit_that_is_none(limit):
    with pytest.raises(TutelageError, match=rf"callbacks\.max_norm\.limit must be above 0; found {limit}"):
        MaxNorm(limit)


class NoUnits(nn.Module):
    def __init__(self):
        super().__init__()
        self.student = nn.Module()
        self.student.net = nn.Module()
        self.student.net.net = nn.Flatten()


def test_a_network_without_units():
    with pytest.raises(TutelageError, match="no linear layer and no convolution in Flatten"):
        MaxNorm(1.0).on_train_start(L.Trainer, NoUnits())


class Counted(LeanEpochLoop):
    lean = 0

    def _step(self, data_fetcher):
        self.lean += 1
        super()._step(data_fetcher)


@pytest.fixture
def weights(compose, tmp_path):
    """``weights(*overrides, loop=Counted)`` → the loop that ran, and the weights of a small mlp after an epoch."""

    def run(*overrides, loop=Counted):
        cfg = compose("logger=none", "trainer.max_epochs=1", "data.batch_size=32", "optimizer.lr=0.01", *overrides)
        stage = factory.stage_config(cfg, "control")
        data = factory.data(stage)
        module = factory.supervised_module(stage, "control", data, None)
        trainer = factory.trainer(stage, "control", tmp_path, tmp_path, len(data.train_dataloader()))
        trainer.fit_loop.epoch_loop = loop(trainer, trainer.min_steps, trainer.max_steps)
        trainer.fit(module, datamodule=data)
        return trainer.fit_loop.epoch_loop, module.student.net.net

    return run


HELD = ("callbacks=max_norm", "callbacks.progress=null", f"callbacks.max_norm.limit={LIMIT}")


def longest(net):
    return [float(weight.detach().norm(dim=1).max()) for weight in net.parameters() if weight.ndim == 2]


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
def test_every_step_is_held_and_a_lean_one_to_the_same_bits(weights):
    loop, held = weights(*HELD)
    _, stock = weights(*HELD, loop=_TrainingEpochLoop)
    _, free = weights("callbacks.progress=null")
    assert loop.lean > 0
    assert digest(held) == digest(stock)
    assert longest(held) == pytest.approx([LIMIT] * 2)
    assert min(longest(free)) > LIMIT * 1.05


def test_of_the_experiment_the_teacher_alone_is_held_and_moved(compose):
    cfg = compose("experiment=hinton_mnist")
    teacher, student, control = (factory.stage_config(cfg, name) for name in ("teacher", "student", "control"))
    assert teacher.callbacks.keys() - student.callbacks.keys() == {"max_norm"}
    assert teacher.network.net.dropout > 0 < teacher.network.net.input_dropout
    assert teacher.data.augment[0].pixels == 2
    assert student.data.augment is control.data.augment is None
    assert student.network.net.dropout == student.network.net.input_dropout == student.optimizer.weight_decay == 0
