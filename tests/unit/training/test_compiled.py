"""Compiled networks: the same training to rounding, the same names, and taps that are read."""

import shutil

import pytest
import torch
from omegaconf import open_dict
from torch import nn

from tutelage.checkpoints.weights import read_state
from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.pipeline import fit
from tutelage.runtime.json_files import read_json
from tutelage.training.compiled import check_compile

pytestmark = pytest.mark.filterwarnings("ignore::Warning")

compile_module = nn.Module.compile


@pytest.fixture
def train(compose, tmp_path):
    """``train(folder, option, *overrides)`` trains a student as a job does → its weights' file and facts."""

    def run(folder, option, *overrides):
        cfg = compose("logger=none", "callbacks.progress=null", f"stages.student.compile={option}", *overrides)
        with open_dict(cfg):
            cfg.trainer.max_epochs, cfg.trainer.limit_train_batches = 1, 5
        stage = factory.stage_config(cfg, "student")
        data = factory.data(stage)
        made = []

        def learner():
            made.append(factory.distillation_module(stage, data, factory.sources(stage), None))
            return made[0]

        fit.run(stage, "student", tmp_path / folder, tmp_path, data, learner)
        assert all(getattr(part, "_compiled_call_impl", None) is None for part in made[0].modules())
        return read_state(str(tmp_path / folder / "last.safetensors")), read_json(tmp_path / folder / "stage.json")

    yield run
    torch.compiler.reset()


CASES = {
    "logits": ("model@teacher=mlp", "model@student=mlp"),
    "taps": ("loss=[soft_target,fitnet]", "model@teacher=cnn", "model@student=cnn"),
    "a moving average": ("sources=ema_teacher", "model@student=mlp"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_compiled_training_is_the_eager_one(train, monkeypatch, case):
    calls = []

    def by_aot_eager(net, **options):
        calls.append((options, net))
        compile_module(net, backend="aot_eager", dynamic=options["dynamic"])

    monkeypatch.setattr(nn.Module, "compile", by_aot_eager)
    found, facts = train("compiled", "true", *CASES[case])
    expected, same = train("eager", "false", *CASES[case])
    assert [options for options, _ in calls] == [{"mode": "default", "dynamic": False}] * 2  # student and who teaches
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    assert facts["multiply_adds"] == same["multiply_adds"]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles C++")
def test_inductor_trains_the_same(train):
    found, _ = train("compiled", "default", *CASES["logits"], "student.net.widths=[8]")
    expected, _ = train("eager", "false", *CASES["logits"], "student.net.widths=[8]")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)


def test_another_mode_is_refused():
    for option in (True, False, "default"):
        check_compile(option, "control")
    with pytest.raises(TutelageError, match=r"stages\.control\.compile must be false, true or one of .* found 'fast'"):
        check_compile("fast", "control")
