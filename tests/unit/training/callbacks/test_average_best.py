"""The average of the best weights: its mean and its statistics in float64, which are kept, and what is refused."""

import copy

import pytest
import torch
from torch import nn

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.pipeline import fit
from tutelage.training.callbacks.average_best import AverageBest, estimate_statistics, mean_of
from tutelage.training.callbacks.best import BestLostError

QUIET = ("logger=none", "callbacks.progress=null")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.5), nn.ReLU())


def test_the_mean_is_that_of_float64_and_integers_stay():
    states = [copy.deepcopy(network().state_dict()) for _ in range(3)]
    for number, state in enumerate(states):
        state["0.weight"] += 1e8 * (number - 1) + 1 / 3
        state["1.num_batches_tracked"] += number
    found = mean_of(states)
    wanted = sum(state["0.weight"].double() for state in states) / 3
    assert torch.equal(found["0.weight"], wanted.float())
    assert found["1.num_batches_tracked"] == 0
    assert found["1.num_batches_tracked"].dtype == torch.int64
    assert torch.equal(mean_of(states[:1])["0.weight"], states[0]["0.weight"])


def test_statistics_are_those_of_the_batches():
    net, batches = network(), [{"input": torch.randn(4, 2, 8, 8) + n} for n in range(3)]
    weights = net[0].weight.clone()
    estimate_statistics(net, batches)
    answers = [net[0](batch["input"]).double() for batch in batches]
    mean = torch.stack([one.mean((0, 2, 3)) for one in answers]).mean(0)
    variance = torch.stack([one.var((0, 2, 3)) for one in answers]).mean(0)
    torch.testing.assert_close(net[1].running_mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net[1].running_var.double(), variance, rtol=1e-5, atol=1e-6)
    assert net[1].momentum == 0.3
    assert not any(part.training for part in net.modules())
    assert torch.equal(net[0].weight, weights)


def test_the_best_are_kept_ties_to_the_earlier_and_lost_ones_are_trained_again(compose, tmp_path, monkeypatch):
    """Four validations of 0.5, 0.9, 0.5 and 0.7: of the best three the second, the fourth and the first."""
    from tutelage.training.callbacks import average_best

    course = (*QUIET, "callbacks=average_best", "callbacks.average_best.n=3", "trainer.max_epochs=4",
              "data.batch_size=300", "student.net.widths=[8]")  # fmt: skip
    stage = factory.stage_config(compose(*course), "control")
    data, told, trainings = factory.data(stage), [0.5, 0.9, 0.5, 0.7], []
    figures = iter([*told, *told])
    monkeypatch.setattr(average_best, "finite_figure", lambda *_: next(figures))
    check = AverageBest.check

    def check_with_one_lost(self, folder):
        trainings.append([epoch for _, _, epoch in self.kept])
        if len(trainings) == 1:
            next((folder / "averaged").iterdir()).unlink()
        check(self, folder)

    monkeypatch.setattr(AverageBest, "check", check_with_one_lost)
    fit.run(stage, "control", tmp_path, tmp_path, data, lambda: factory.supervised_module(stage, "control", data, None))
    assert trainings == [[1, 3, 0], [1, 3, 0]]
    assert len(list((tmp_path / "averaged").iterdir())) == 3


def test_a_file_that_is_damaged_is_named(tmp_path):
    callback = AverageBest()
    callback.load_state_dict({"kept": [(0.5, 18, 0)]})
    with pytest.raises(BestLostError, match=r"weights to average are lost \(.*averaged/18.safetensors"):
        callback.check(tmp_path)


@pytest.mark.parametrize("key", ["n", "examples"])
@pytest.mark.parametrize("value", [0, 1.5])
def test_numbers_out_of_range(key, value):
    said = rf"callbacks\.average_best\.{key} must be at least 1, and whole; found {value}"
    with pytest.raises(TutelageError, match=said):
        AverageBest(**{key: value})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [(("prune=magnitude",), "does not keep the zeros"), (("quantise=int8",), "an average of rounded weights")],
)
def test_what_has_no_average_of_its_kind_is_refused(compose, tmp_path, overrides, said):
    stage = factory.stage_config(compose(*QUIET, "callbacks=average_best", *overrides), "control")
    data = factory.data(stage)
    module = factory.supervised_module(stage, "control", data, None)
    with pytest.raises(TutelageError, match=said):
        factory.trainer(stage, "control", tmp_path, tmp_path, 9).fit(module, datamodule=data)
