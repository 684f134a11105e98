"""The average of the weights: by hand, and wherever a network is shown."""

import math

import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from tutelage.checkpoints.weights import digest, read_state
from tutelage.config import factory
from tutelage.config.validate import check
from tutelage.errors import TutelageError
from tutelage.evaluation import results
from tutelage.pipeline import fit
from tutelage.training.callbacks.ema import Ema, RisingAverage
from tutelage.training.fast_loop import LeanEpochLoop, Quiet

DECAY, RAMP = 0.8, 10.0
SHORT = ("logger=none", "callbacks=ema", "callbacks.progress=null", "data.batch_size=100", "optimizer.lr=0.01",
         f"callbacks.ema.decay={DECAY}", "trainer.max_epochs=2", "student.net.widths=[8]")  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")


class Path(Quiet):
    """Keeps the student's weights before the first step and after each."""

    def __init__(self):
        self.states = []

    def keep(self, module):
        state = module.student.net.net.state_dict()
        self.states.append({name: value.detach().double().clone() for name, value in state.items()})

    def on_train_start(self, trainer, pl_module):
        self.keep(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.keep(pl_module)


def averaged(states):
    """The average after each step, in float64, from the formula."""
    found = [states[0]]
    for t, state in enumerate(states[1:]):
        decay = min(DECAY, (1 + t) / (RAMP + t))
        found.append({name: decay * found[-1][name] + (1 - decay) * state[name] for name in state})
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Stage, data, folder and the course of the weights of a control that was trained with an average."""
    from hydra import compose, initialize_config_dir

    from tutelage.config.paths import conf_dir

    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("distill", overrides=[*SHORT])
    stage, folder, path = factory.stage_config(cfg, "control"), tmp_path_factory.mktemp("ema"), Path()
    data = factory.data(stage)
    usual = factory.trainer

    def with_path(*arguments):
        trainer = usual(*arguments)
        trainer.callbacks.append(path)
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "trainer", with_path)
        fit.run(
            stage, "control", folder, folder / "tensorboard", data,
            lambda: factory.supervised_module(stage, "control", data, None),
        )  # fmt: skip
    return data, folder, path.states


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)


def test_last_and_best_are_the_average_and_the_raw_weights_lie_beside(trained):
    data, folder, states = trained
    course = averaged(states)
    steps = len(data.train_dataloader())
    assert len(states) == 2 * steps + 1
    assert_close(read_state(folder / "last.safetensors"), course[-1])
    assert_close(read_state(folder / "raw.safetensors"), states[-1])
    epoch = results.Trained.read(folder, False).facts["epoch"]["best"]
    assert_close(read_state(folder / "best.safetensors"), course[(epoch + 1) * steps])
    assert digest(read_state(folder / "last.safetensors")) != digest(read_state(folder / "raw.safetensors"))


def test_the_figures_of_best_are_those_of_the_average(trained, compose):
    """The accuracy by which best was chosen is that of the file's own weights."""
    data, folder, _ = trained
    said = results.Trained.read(folder, False).predictions["best", "val"]
    net = factory.network(factory.stage_config(compose(*SHORT), "control").network, 0)
    net.net.load_state_dict(read_state(folder / "best.safetensors"))
    images = data.splits["val"][0, torch.arange(len(said.label))]["input"]
    torch.testing.assert_close(net.eval()(images)["logits"], said.logits, rtol=1e-4, atol=1e-4)


class Counted(LeanEpochLoop):
    lean = 0

    def _step(self, data_fetcher):
        self.lean += 1
        super()._step(data_fetcher)


@pytest.mark.parametrize("more", [(), ("trainer.accumulate_grad_batches=2",)], ids=["lean", "accumulated"])
def test_a_lean_step_and_lightnings_give_the_same_bits(compose, tmp_path, more):
    found = []
    for loop in (Counted, _TrainingEpochLoop):
        cfg = compose(*SHORT, *(f"+{one}" for one in more))
        stage = factory.stage_config(cfg, "control")
        data = factory.data(stage)
        module = factory.supervised_module(stage, "control", data, None)
        trainer = factory.trainer(stage, "control", tmp_path, tmp_path, len(data.train_dataloader()))
        trainer.fit_loop.epoch_loop = loop(trainer, trainer.min_steps, trainer.max_steps)
        trainer.fit(module, datamodule=data)
        assert int(module.average.steps) == trainer.global_step  # once a step
        assert loop is not Counted or bool(trainer.fit_loop.epoch_loop.lean) == (not more)
        found.append(digest(module.average.net.net))
    assert found[0] == found[1]


def test_the_average_is_not_learned_and_changes_nothing_for_the_student(compose, tmp_path):
    found = []
    for choice in ("ema", "default"):
        overrides = [one for one in SHORT if "ema" not in one]
        stage = factory.stage_config(compose(*overrides, f"callbacks={choice}"), "control")
        data = factory.data(stage)
        module = factory.supervised_module(stage, "control", data, None)
        factory.trainer(stage, "control", tmp_path, tmp_path, 9).fit(module, datamodule=data)
        learned = {id(p) for group in module.optimizers().param_groups for p in group["params"]}
        assert learned == {id(p) for p in module.student.parameters()}
        found.append(digest(module.student.net.net))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("key", "value"),
    [("decay", 1.0), ("decay", -0.1), ("ramp", 0.5), ("ramp", float("nan")), ("beta", 0), ("beta", float("nan"))],
)
def test_numbers_out_of_range(key, value):
    with pytest.raises(TutelageError, match=rf"callbacks\.ema\.{key} must be .*; found {value}"):
        Ema(**{key: value})


@pytest.mark.parametrize(("ramp", "beta"), [(10.0, 15.0), (None, None)])
def test_one_rise_of_the_decay(ramp, beta):
    with pytest.raises(TutelageError, match=r"callbacks\.ema: one of ramp and beta is null"):
        Ema(0.9, ramp, beta)


def test_the_recipes_decay_is_that_of_the_original():
    """SuperGradients' of 31,000 steps: 4.8e-4 after the first, 0.777 after a tenth, 0.9993 after half."""
    average = RisingAverage(0.9999, 15.0, 31_000)
    assert average.decay_at(1) == pytest.approx(4.8e-4, rel=1e-2)
    assert average.decay_at(3_100) == pytest.approx(0.777, abs=5e-4)
    assert average.decay_at(15_500) == pytest.approx(0.9993, abs=1e-4)
    assert average.decay_at(31_000) == pytest.approx(0.9999, abs=1e-6)


def test_a_rise_over_the_training_follows_its_length(compose, tmp_path):
    stage = factory.stage_config(compose(*SHORT, "callbacks.ema.ramp=null", "callbacks.ema.beta=15"), "control")
    data = factory.data(stage)
    module = factory.supervised_module(stage, "control", data, None)
    trainer = factory.trainer(stage, "control", tmp_path, tmp_path, len(data.train_dataloader()))
    assert not Ema().follows_length
    assert next(one for one in trainer.callbacks if isinstance(one, Ema)).follows_length
    trainer.fit(module, datamodule=data)
    assert module.average.decay_at(trainer.global_step) == pytest.approx(DECAY * -math.expm1(-15), rel=1e-9)


@pytest.mark.parametrize("name", ["EMAWeightAveraging", "WeightAveraging", "StochasticWeightAveraging"])
@pytest.mark.parametrize("where", ["callbacks", "stages.student.callbacks"])
def test_lightnings_own_averages_are_refused(compose, name, where):
    more = ", swa_lrs: 0.1" if name.startswith("Stochastic") else ""
    group = "+stages.student.callbacks" if "stages" in where else "+callbacks"
    cfg = compose(f"{group}.mine={{_target_: lightning.pytorch.callbacks.{name}{more}}}")
    with pytest.raises(TutelageError, match=rf"callbacks\.mine: with {name} .*use callbacks=ema"):
        check(cfg)
