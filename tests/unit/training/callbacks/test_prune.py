"""Pruning along the cubic schedule: exact numbers of zeros, that stay; statistics held near the end."""

import lightning as L
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.pipeline.extension import _reads_length
from tutelage.stacked.plan import unfit
from tutelage.training.callbacks.ema import Ema
from tutelage.training.callbacks.freeze import FreezeStatistics
from tutelage.training.callbacks.prune import Prune, masks
from tutelage.training.compiled import compiled
from tutelage.training.fast_loop import Quiet

PAIR = ("model@teacher=vgg4", "teacher.net.widths=[2,4,8]", "model@student=vgg4", "student.net.widths=[2,4,8]")
QUIET = ("logger=none", "callbacks.progress=null")


def test_masks_have_the_smallest_weights_of_all_or_of_each_layer():
    weights = {"a": torch.tensor([[1.0, -3.0], [0.5, 0.5]]), "b": torch.tensor([0.1, -0.2, 4.0])}
    found = masks(weights, 4 / 7)
    assert found["a"].tolist() == [[1, 1], [0, 0]]
    assert found["b"].tolist() == [0, 0, 1]
    assert masks(weights, 3 / 7)["a"].tolist() == [[1, 1], [0, 1]]  # of equal ones the first
    found = masks(weights, 0.5, "layer")
    assert found["a"].tolist() == [[1, 1], [0, 0]]
    assert found["b"].tolist() == [0, 0, 1]  # round(1.5) is 2
    assert all(bool(mask.all()) for mask in masks(weights, 0.0).values())


class Watch(Quiet):
    """Counts the zeros of the student's layers after each step, and whether statistics are held."""

    def __init__(self):
        self.zeros, self.frozen = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        net = pl_module.student.net.net
        parts = [one for one in net.modules() if isinstance(one, nn.Linear | nn.Conv2d)]
        self.zeros.append([int((one.weight == 0).sum()) for one in parts])
        self.frozen.append(getattr(net, "frozen", None))


@pytest.fixture
def trained(compose, tmp_path):
    """``trained(*overrides)`` → the student after its training, what was seen, and the trainer."""

    def run(*overrides):
        stage = factory.stage_config(compose(*PAIR, *QUIET, *overrides), "control")
        data = factory.data(stage)
        module = factory.supervised_module(stage, "control", data, None)
        trainer = factory.trainer(stage, "control", tmp_path, tmp_path, len(data.train_dataloader()))
        trainer.callbacks.append(watch := Watch())
        trainer.fit(module, datamodule=data)
        return module.student.net.net, watch, trainer

    return run


PRUNED = (
    "prune=magnitude",
    "data.batch_size=50",
    "trainer.max_epochs=2",
    "stages.student.callbacks.prune.every_n_steps=4",
)


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
def test_zeros_follow_the_schedule_and_stay(trained):
    net, watch, trainer = trained(*PRUNED, "stages.student.callbacks.prune.keep=[classifier.weight]")
    total = trainer.global_step
    end = round(0.75 * total)
    number = sum(one.weight.numel() for one in net.modules() if isinstance(one, nn.Conv2d))
    share = 0.0
    for step, zeros in enumerate(watch.zeros, start=1):
        if step <= end and (step % 4 == 0 or step == end):
            share = 0.9 * (1 - (1 - step / end) ** 3)
        assert sum(zeros[:-1]) == round(share * number), step
        assert zeros[-1] == 0
    assert share == 0.9
    [prune] = [one for one in trainer.callbacks if isinstance(one, Prune)]
    again = Prune(0.9)
    again.load_state_dict(prune.state_dict())
    assert again.state_dict() == prune.state_dict()


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
def test_a_quantised_student_can_be_pruned_and_its_statistics_are_held_in_the_last_epochs(trained):
    net, watch, trainer = trained(*PRUNED, "quantise=int4", "stages.student.callbacks.freeze.after=0.5")
    number = sum(one.weight.numel() for one in net.modules() if isinstance(one, nn.Conv2d | nn.Linear))
    assert sum(watch.zeros[-1]) == round(0.9 * number)
    zeros = sum(int((value == 0).sum()) for value in net.rounded().values())
    assert zeros >= round(0.9 * number)  # 0 is on every channel's grid
    half = trainer.global_step // 2
    assert watch.frozen == [False] * half + [True] * half
    assert all(float(span.high) > float(span.low) for span in net.ranges)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sparsity": 1.0}, "sparsity must be between 0 and 1; found 1.0"),
        ({"start": 0.8}, "expected 0 <= start < end <= 1; found 0.8 and 0.75"),
        ({"every_n_steps": 0}, "every_n_steps must be at least 1; found 0"),
        ({"scope": "layers"}, "scope=layers: did you mean 'layer'"),
    ],
)
def test_arguments_out_of_range(given, said):
    with pytest.raises(TutelageError, match=said):
        Prune(**{"sparsity": 0.5, **given})
    with pytest.raises(TutelageError, match=r"callbacks\.freeze\.after must be from 0 to 1; found 2"):
        FreezeStatistics(2)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["+callbacks@stages.student.callbacks=ema"], r"an average of weights \(callbacks\.ema\) does not keep zeros"),
        (["quantise=buckets"], "buckets and points round zeros to other values"),
        (["stages.student.callbacks.prune.keep=[classifer.weight]"], "no weight 'classifer.weight'; did you mean"),
    ],
)
def test_what_would_not_stay_zero_is_refused(trained, more, said):
    with pytest.raises(TutelageError, match=said):
        trained(*PRUNED, *more)


def test_a_longer_training_would_have_had_another_course():
    def reads(kind, **arguments):
        return _reads_length(OmegaConf.create({"_target_": f"{kind.__module__}.{kind.__qualname__}", **arguments}))

    assert reads(Prune, sparsity=0.5) == reads(FreezeStatistics) == reads(Ema, ramp=None, beta=15) == "max_epochs"
    assert reads(L.Callback) == reads(Ema) == ""


def test_quantised_students_are_neither_stacked_nor_compiled(compose):
    stage = factory.stage_config(compose(*PAIR, *QUIET, "quantise=points"), "control")
    data = factory.data(stage)
    module = factory.supervised_module(stage, "control", data, None)
    assert unfit(module, {}, data) == "Quantised rounds its weights in every step"
    with pytest.raises(TutelageError, match="how a quantised network rounds"), compiled(module, True):
        pass
